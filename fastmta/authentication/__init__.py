"""Message authentication: SPF, DKIM, ARC and DMARC, verified and signed. Rules over octets and DNS answers only."""
