"""How APDUs are protected: ciphering, signatures, proofs of who somebody is, keys."""
