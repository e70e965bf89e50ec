"""The command line: fastmta, sendmail, mailq, newaliases, postmap."""
