#!/bin/sh
# Be a host with the libvirt that is unpacked in $1, seen by this process and its children only;
# $2 is a folder for logs. Ends when its standard input does.
set -e
mount -t overlay libvirt -o "lowerdir=$1/usr:/usr" /usr
mount -t tmpfs run /run
mkdir -p /run/lock
for folder in /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt; do
    mount -t tmpfs private "$folder"
done
# Accounts that Debian's packages would add.
cp /etc/passwd "$2/passwd"
cp /etc/group "$2/group"
echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>"$2/passwd"
echo 'libvirt-qemu:x:64055:' >>"$2/group"
echo 'libvirt:x:64056:' >>"$2/group"
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/group" /etc/group
cat >/etc/libvirt/qemu.conf <<'CONFIGURATION'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
CONFIGURATION
cat >/etc/libvirt/libvirtd.conf <<'CONFIGURATION'
auth_unix_rw = "none"
log_filters = "1:qemu.qemu_monitor 3:*"
CONFIGURATION
echo "log_outputs = \"1:file:$2/libvirtd.log\"" >>/etc/libvirt/libvirtd.conf
echo ready
cat >/dev/null
