#!/bin/busybox sh
# First process of the test host: load KVM, run /project/start, and leave what is then in
# /results on the disk. Lines that begin with "svm-host: phase" are for boot.py.
export PATH=/usr/local/bin:/usr/bin:/bin:/sbin HOME=/root LANG=C.UTF-8
/bin/busybox mkdir -p /sbin /proc /sys /dev /tmp /run /etc /root /results
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ip link set lo up
hostname svm-host
echo 'root:x:0:0:root:/root:/bin/sh' >/etc/passwd
echo '127.0.0.1 localhost svm-host' >/etc/hosts

die() {
    echo "svm-host: failed: $1"
    dmesg | tail -n 20
    sync
    poweroff -f
}

while read -r module; do
    insmod "$module" || die "insmod $module"
done </lib/modules/load-order
[ -c /dev/kvm ] || die "kvm_amd is loaded but there is no /dev/kvm"
echo "svm-host: Linux $(uname -r), $(nproc) CPUs, kvm_amd npt=$(cat /sys/module/kvm_amd/parameters/npt)"

echo "svm-host: phase tests"
cd /project
sh ./start
echo $? >/results/status
echo "svm-host: phase end"
tar -cf /dev/vda -C /results . || die "writing the results: is there more than the disk holds?"
sync
poweroff -f
