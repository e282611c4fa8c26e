"""What a gateway's operating system needs: systemd unit, udev rules, sysusers and tmpfiles."""
