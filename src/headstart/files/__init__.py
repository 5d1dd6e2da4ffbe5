"""What lies on a disk, read and written so that neither an accident nor an attacker gets far."""
