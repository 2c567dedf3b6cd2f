"""Build rules of this project: the flags every target shares live here and in .bazelrc."""

# A process that exists once per VM is one static file: no dynamic linker on the way to main(),
# and, linked at a fixed address, no relocations that would turn tables into private memory.
# The sanitizers' runtimes cannot be linked that way.
STATIC = select({
    "//bazel:asan": [],
    "//bazel:tsan": [],
    "//bazel:fuzz": [],
    "//conditions:default": ["-static"],
})

# For sources with Asio's coroutines: GCC 12 takes the frame's own operator delete, once its
# operator new is inlined, for that of another allocator.
COROUTINES = ["-Wno-mismatched-new-delete"]

def cube_test(name, srcs, deps = [], size = "small", **kwargs):
    """A GoogleTest program."""
    native.cc_test(
        name = name,
        srcs = srcs,
        deps = deps + ["//bazel:gtest_main"],
        size = size,
        **kwargs
    )

def vm_test(
        name,
        srcs = None,
        kernel = "//guestkernel:vmlinux",
        initrd = "//guestkernel:initramfs",
        rootfs = None,
        data = [],
        env = {},
        manual = {},
        deps = [],
        size = "large",
        **kwargs):
    """A GoogleTest program that runs VMs: cube-vmm as a user does (tests/vmm_command.h).

    Args:
      name: of the target.
      srcs: NAME.cc if not given.
      kernel: $CUBE_KERNEL, or None.
      initrd: $CUBE_INITRD, or None.
      rootfs: the image of a root disk, $CUBE_ROOTFS, or None.
      data: more files.
      env: more variables; $(location) of what is in data.
      manual: the same test with other variables, run by name only: {name: variables}.
      deps: beside what starts cube-vmm.
      size: of the test.
      **kwargs: as for cc_test.
    """
    files = {"CUBE_VMM": "//vmm/cli:cube-vmm"}
    for variable, file in [
        ("CUBE_KERNEL", kernel),
        ("CUBE_INITRD", initrd),
        ("CUBE_ROOTFS", rootfs),
    ]:
        if file:
            files[variable] = file
    places = {variable: "$(location %s)" % file for variable, file in files.items()}
    variants = [(name, {}, [])]
    variants += [(other, variables, ["manual"]) for other, variables in manual.items()]
    for each, variables, tags in variants:
        cube_test(
            name = each,
            srcs = srcs or [name + ".cc"],
            data = files.values() + data,
            env = dict(places.items() + env.items() + variables.items()),
            tags = ["vm"] + tags,
            size = size,
            deps = [
                "//tests:process",
                "//tests:vmm_command",
            ] + deps,
            **kwargs
        )

def cube_fuzz(name, srcs, deps = [], seconds = 10, max_len = 4096, linkopts = [], **kwargs):
    """A libFuzzer target, run for a few seconds as a test.

    Built by clang with --config=fuzz (coverage, AddressSanitizer, UBSan), so it is left out of
    //... and named by its tag: tools/test.sh runs every target tagged "fuzz". Seeds are made by
    the program (LLVMFuzzerInitialize in kernel_loader_fuzz.cc), so that none goes stale, or, where
    an input means something whatever it is, are the files of corpus/NAME.

    Args:
      seconds: how long the test runs.
      max_len: the longest input, in bytes.
    """
    corpus = native.glob(["corpus/%s/*" % name])
    seeds = ",".join([native.package_name() + "/" + each for each in corpus])
    native.cc_test(
        name = name,
        srcs = srcs,
        deps = deps,
        data = corpus,
        size = "medium",
        args = [
            "-max_total_time=%d" % seconds,
            "-max_len=%d" % max_len,
            "-timeout=10",
            "-rss_limit_mb=2048",
        ] + (["-seed_inputs=" + seeds] if corpus else []),
        linkopts = ["-fsanitize=fuzzer"] + linkopts,
        tags = ["fuzz", "manual"],
        **kwargs
    )

def bpf_object(name, src, hdrs, **kwargs):
    """Programs for the kernel: compiled by clang, as a skeleton (NAME.skel.h) that carries them.

    Args:
      name: of the library, and of the struct in the skeleton.
      src: the C source.
      hdrs: the headers it includes.
      **kwargs: as for cc_library.
    """
    native.genrule(
        name = name + "_skeleton",
        srcs = [src] + hdrs,
        outs = [name + ".skel.h"],
        cmd = "clang-14 -target bpf -O2 -g -Wall -Wextra -Wno-unused-parameter -Werror -I. " +
              "-idirafter /usr/include/x86_64-linux-gnu -c $(location %s) -o $(@D)/%s.o && " % (src, name) +
              "/usr/sbin/bpftool gen skeleton $(@D)/%s.o name %s > $@" % (name, name),
        message = "Compiling for BPF",
    )
    native.cc_library(
        name = name,
        hdrs = [name + ".skel.h"],
        # Generated: warnings about it help nobody.
        includes = ["."],
        deps = ["//bazel:libbpf"],
        **kwargs
    )
