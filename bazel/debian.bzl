"""Repositories made from what Debian installs."""

_RULES_CC = "/usr/share/bazel/rules/cc"

# These two files of Debian's rules_cc load a symbol that its Bazel 4.2.3 lacks; the
# toolchain type it stands for is not used by this Bazel's C++ rules.
_MENDED = [
    "cc/private/rules_impl/compiler_flag.bzl",
    "cc/private/rules_impl/cc_flags_supplier.bzl",
]

def _debian_rules_cc_impl(ctx):
    if not ctx.path(_RULES_CC).exists:
        fail("%s is missing: apt-get install bazel-rules-cc" % _RULES_CC)
    result = ctx.execute(["cp", "-RL", _RULES_CC + "/.", "."])
    if result.return_code != 0:
        fail("copying %s: %s" % (_RULES_CC, result.stderr))
    for path in _MENDED:
        text = ctx.read(path)
        text = text.replace(', "use_cpp_toolchain"', "")
        text = text.replace("toolchains = use_cpp_toolchain(),", "")
        ctx.file(path, text, executable = False)

debian_rules_cc = repository_rule(
    implementation = _debian_rules_cc_impl,
    local = True,
)

def _debian_stub_coverage_impl(ctx):
    ctx.file("BUILD", """
filegroup(name = "coverage_report_generator", srcs = [], visibility = ["//visibility:public"])
""")

# cc_test names this repository even when no coverage is asked for.
debian_stub_coverage = repository_rule(implementation = _debian_stub_coverage_impl)
