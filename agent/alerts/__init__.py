"""From evidence to alerts: identity, life, restraint, and their IEC 61968-9 codes."""
