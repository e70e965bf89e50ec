"""Mail of this machine's own users: `sendmail` leaves it in a spool directory, and one worker picks it up."""
