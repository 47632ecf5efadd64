#!/bin/busybox sh
# The first process of a virtual machine: tries foobar under its kernel, tells what came of it, and turns the machine off.

/bin/busybox --install -s /bin 2> /dev/null
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /var/lib
chown -R 0:0 /etc

tell() {
    about="$1"
    shift
    if "$@" > /tmp/told 2>&1; then
        echo "ok: $about"
    else
        echo "not ok: $about"
        cat /tmp/told
    fi
}

# busybox has one of its own, which knows no namespaces.
net() {
    /sbin/ip "$@"
}

fails() {
    ! "$@"
}

in_service() {
    for _ in $(seq 90); do
        foobar status && return
        sleep 1
    done
    cat /tmp/foobar.log
    return 1
}

# A filter that finds no test ends well, too.
table() {
    packets --test-threads=1 every_case > /tmp/table 2>&1
    cat /tmp/table
    grep -q "test result: ok. [1-9]" /tmp/table
}

counted() {
    foobar stats drops | grep policy
}

echo "kernel: $(uname -r)"
for module in /modules/*.ko; do
    insmod "$module"
done
net link set lo up
net netns add client
net link add wan0 type veth peer name eth0 netns client
net address add 203.0.113.10/24 dev wan0
net link set wan0 up
net -n client address add 203.0.113.7/24 dev eth0
net -n client address add 203.0.113.8/24 dev eth0
net -n client link set eth0 up

tell "the table of packets ends as it says" table

foobar run --node lb1 > /tmp/foobar.log 2>&1 &
tell "foobar is in service" in_service
tell "a client that may come is answered" net netns exec client ping -c 1 -W 10 -I 203.0.113.7 203.0.113.10
tell "one that may not is not" fails net netns exec client ping -c 1 -W 2 -I 203.0.113.8 203.0.113.10
tell "what may leave leaves" ping -c 1 -W 10 203.0.113.7
tell "what may not stays" fails ping -c 1 -W 2 203.0.113.8
tell "a reload changes nothing that stands" foobar reload
tell "and the client is answered" net netns exec client ping -c 1 -W 10 -I 203.0.113.7 203.0.113.10
tell "what was dropped is counted" counted
foobar status
echo "ended"
poweroff -f
