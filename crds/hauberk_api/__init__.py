"""What both halves of Hauberk agree on: kinds, conditions, names, the plan and the certificate profile."""
