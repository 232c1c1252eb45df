#!/bin/busybox sh
# A shell on the first console; the serial port comes back cooked, with echo.
/bin/busybox --install -s /bin 2>/dev/null
mkdir -p /proc /sys /dev /tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
export PATH=/bin HOME=/ PS1='# '
echo "ready: $(uname -r), cpus $(cat /sys/devices/system/cpu/online)"
exec setsid cttyhack sh
