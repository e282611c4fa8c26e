"""The HDLC data link of IEC 62056-46, without I/O."""
