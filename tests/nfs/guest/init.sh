#!/bin/sh
# First process of every guest (kernel parameter init=).  Runs on the guest kernel with the
# host's root directory mounted read-only through hostfs.  Everything named rig_* comes from
# the kernel command line (unknown "name=value" kernel parameters become the environment of init).
#
# Stage 1: make a writable view of the host's file system:
#          overlay(lower = <unpacked Debian packages> over <host />, upper = tmpfs), chroot into it.
# Stage 2: network, NFS server or client, then the agent that executes commands for the host.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

if [ "$1" != stage2 ]; then
    B=$rig_prefix/usr/bin/busybox
    $B mount -t proc proc /proc
    M=$rig_prefix/usr/lib/uml/modules/$($B uname -r)
    $B insmod $M/kernel/fs/overlayfs/overlay.ko
    $B mount -t tmpfs -o mode=755 tmpfs /run
    cd /run && $B mkdir host pfx up work root
    $B mount -t hostfs -o ro,$rig_prefix none pfx          # own superblock: overlay refuses nested lower dirs
    $B mount -t overlay -o lowerdir=/run/pfx:/,upperdir=/run/up,workdir=/run/work overlay root || { echo "rig: overlay failed"; $B poweroff -f; }
    cd root
    $B mkdir -p proc sys dev run tmp nfs xchg lib/modules var/lib/nfs/sm var/lib/nfs/sm.bak var/lib/nfs/v4recovery
    $B mount -t proc proc proc
    $B mount -t sysfs sys sys
    $B mount -t devtmpfs dev dev
    $B mkdir -p dev/pts dev/shm
    $B mount -t devpts devpts dev/pts
    $B mount -t tmpfs shm dev/shm
    $B mount -t tmpfs -o mode=755 tmpfs run
    $B mount -t tmpfs -o mode=1777 tmpfs tmp
    $B mkdir -p run/rpcbind run/lock
    # passed-through host directories (same path inside): the rig itself, the exchange directory, shares
    for d in $rig_dir $(echo "$rig_share" | $B tr : ' '); do
        $B mkdir -p .$d && $B mount -t hostfs -o ro,$d none .$d
    done
    $B mount -t hostfs -o $rig_xchg none xchg
    exec $B chroot . /bin/sh $rig_dir/guest/init.sh stage2
fi

B=/usr/bin/busybox
hostname() { $B hostname "$@"; }
ln -sfn /usr/lib/uml/modules/$(uname -r) /lib/modules/$(uname -r)
$B hostname $rig_name
$B ifconfig lo 127.0.0.1 up
$B ifconfig eth0 $rig_ip netmask 255.255.255.0 up
# the switch keeps 10 packets (net.unix.max_dgram_qlen): of more in a row some are lost, and TCP sends those again after
# 200 ms; so a socket has room for a few only
for each in tcp_rmem tcp_wmem; do echo 4096 8192 8192 > /proc/sys/net/ipv4/$each; done
cat > /etc/hosts <<X
127.0.0.1 localhost
10.99.0.1 server
10.99.0.11 c1
10.99.0.12 c2
10.99.0.13 c3
10.99.0.14 c4
X
# users that rpcbind and statd change to (their packages were unpacked, not installed)
grep -q '^_rpc:'  /etc/passwd || echo '_rpc:x:64101:65534::/run/rpcbind:/usr/sbin/nologin' >> /etc/passwd
grep -q '^statd:' /etc/passwd || echo 'statd:x:64102:65534::/var/lib/nfs:/usr/sbin/nologin' >> /etc/passwd
echo "hosts: files" > /etc/nsswitch.conf; for x in passwd group netgroup services protocols rpc; do echo "$x: files" >> /etc/nsswitch.conf; done
: > /etc/resolv.conf
chmod 1777 /tmp

say() { echo "rig[$rig_name $(cut -d' ' -f1 /proc/uptime)] $*"; }

if [ $rig_role = server ]; then
    $B modprobe nfsd || say "modprobe nfsd failed"
    mkdir -p /export
    if [ -b /dev/ubda ]; then                       # a disk image: survives a crash of the server
        mount -t ext4 /dev/ubda /export || say "mount of the export failed"
        mkdir -p /export/.state/nfs && cp -an /var/lib/nfs/. /export/.state/nfs/ 
        mount --bind /export/.state/nfs /var/lib/nfs
        chown statd /var/lib/nfs /var/lib/nfs/sm /var/lib/nfs/sm.bak
        mkdir -p /export/data
    else
        mkdir -p /export/data; mount -t tmpfs -o size=512m tmpfs /export/data
    fi
    chmod 1777 /export/data
    chown statd /var/lib/nfs /var/lib/nfs/sm /var/lib/nfs/sm.bak
    touch /var/lib/nfs/etab /var/lib/nfs/rmtab
    mount -t nfsd nfsd /proc/fs/nfsd
    mkdir -p /run/rpc_pipefs && mount -t rpc_pipefs rpc /run/rpc_pipefs
    rpcbind -w; rpc.statd
    [ -n "$rig_lease" ] && echo $rig_lease > /proc/fs/nfsd/nfsv4leasetime && echo $rig_lease > /proc/fs/nfsd/nfsv4gracetime
    # fsid=0: root of the NFSv4 name space (the guest's real root is an overlay, which cannot be exported);
    # NFSv4 clients mount server:/ and NFSv3 clients server:/export/data
    : > /etc/exports; exportfs -o rw,sync,no_subtree_check,no_root_squash,fsid=0 10.99.0.0/24:/export/data
    rpc.mountd -N 2
    rpc.nfsd ${rig_threads:-8}
    if [ ! -e /export/.state/used ]; then            # a fresh file system: nobody has state to reclaim, so no grace
        echo Y > /proc/fs/nfsd/v4_end_grace
        echo Y > /proc/fs/lockd/nlm_end_grace
        mkdir -p /export/.state; : > /export/.state/used
    else
        sm-notify 2>/dev/null
    fi
    say "server up: $(cat /proc/fs/nfsd/versions)"
else
    $B modprobe nfsv4 || say "modprobe nfsv4 failed"; $B modprobe nfsv3
    # what a client of version 3 must still know after a crash: whom to tell that its locks are gone
    cp -an /var/lib/nfs/. /xchg/$rig_name/; mount --bind /xchg/$rig_name /var/lib/nfs
    chown statd /var/lib/nfs /var/lib/nfs/sm /var/lib/nfs/sm.bak
    mkdir -p /run/rpc_pipefs && mount -t rpc_pipefs rpc /run/rpc_pipefs
    rpcbind -w; rpc.statd; sm-notify 2>/dev/null
    mkdir -p /nfs/v4 /nfs/v3
    say "client up"
fi
$rig_python $rig_dir/guest/agent.py /dev/tty1
say "agent ended"
sync
$B poweroff -f
