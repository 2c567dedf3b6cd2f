"""Tests in JavaScript with the npm packages that users of a sandbox have."""

def sdk_test(
        name,
        args = [],
        data = [],
        env = {},
        rootfs = "//guestkernel:debian",
        daemon = True,
        **kwargs):
    """run.sh of the folder, with the programs and images that its variables name.

    Packages come from the npm registry the first time, then from the cache (tools/lib/npm.sh).

    Args:
      name: of the target.
      args: of run.sh.
      data: files beside the folder's *.mjs.
      env: more variables.
      rootfs: the image of a root disk, $CUBE_ROOTFS.
      daemon: whether it starts a node: $CUBE, with cubed beside it.
      **kwargs: as for sh_test.
    """
    files = {
        "CUBE_VMM": "//vmm/cli:cube-vmm",
        "CUBE_KERNEL": "//guestkernel:vmlinux",
        "CUBE_INITRD": "//guestkernel:agent-initramfs",
        "CUBE_ROOTFS": rootfs,
    }
    more = []
    if daemon:
        files["CUBE"] = "//pool:cube"
        more = ["//pool:cubed"]
    places = {variable: "$(location %s)" % file for variable, file in files.items()}
    native.sh_test(
        name = name,
        size = "large",
        srcs = ["run.sh"],
        args = args,
        data = native.glob(["*.mjs"]) + files.values() + more + data + [
            "//tools:lib/cache.sh",
            "//tools:lib/npm.sh",
        ],
        env = dict(places.items() + env.items()),
        tags = [
            "no-sanitizer",
            "vm",
        ],
        **kwargs
    )
