"""Tools for a workstation: replay, training, reports. The service never imports them."""
