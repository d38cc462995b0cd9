"""`make bench`: what Hauberk's own parts cost, each against the other way of doing the same in the same run."""
