#include <errno.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "net/fabric.h"

// Hosts that cannot have the fabric say so in a line, and have made nothing.
namespace cube::net {
namespace {

// This process goes on where bpf(2) fails.
void DenyBpf(int error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bpf, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog filter = {4, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) {
    exit(1);
  }
}

// Where there is no BTF.
void HideBtf() {
  if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0 ||
      mount("none", "/sys/kernel/btf", "tmpfs", 0, nullptr) < 0) {
    exit(1);
  }
}

[[noreturn]] void SayWhatIsLacking() {
  if (unshare(CLONE_NEWNET) < 0) exit(1);
  FabricOptions options;
  options.pins = "";
  auto fabric = Fabric::Open(options);
  fprintf(stderr, "%s", fabric.ok() ? "nothing" : fabric.error().message().c_str());
  auto netlink = Netlink::Open();
  exit(netlink.ok() && netlink->Links()->size() == 1 ? 0 : 2);
}

TEST(LackingHostTest, NoBpf) {
  EXPECT_EXIT(
      {
        DenyBpf(ENOSYS);
        SayWhatIsLacking();
      },
      ::testing::ExitedWithCode(0),
      "^this host's kernel has no BPF programs for TC \\(CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF, "
      "CONFIG_NET_SCH_INGRESS\\)$");
}

TEST(LackingHostTest, NotAllowed) {
  EXPECT_EXIT(
      {
        DenyBpf(EPERM);
        SayWhatIsLacking();
      },
      ::testing::ExitedWithCode(0),
      "^the network fabric needs CAP_BPF and CAP_NET_ADMIN \\(or root\\)$");
}

TEST(LackingHostTest, NoBtf) {
  EXPECT_EXIT(
      {
        HideBtf();
        SayWhatIsLacking();
      },
      ::testing::ExitedWithCode(0),
      "^this host's kernel has no BTF \\(CONFIG_DEBUG_INFO_BTF\\): there is no "
      "/sys/kernel/btf/vmlinux$");
}

TEST(LackingHostTest, NoWayOut) {
  EXPECT_EXIT(SayWhatIsLacking(), ::testing::ExitedWithCode(0),
              "^network.uplink: this host has no default route to take$");
}

}  // namespace
}  // namespace cube::net
