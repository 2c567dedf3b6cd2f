// Sockets and networks of clones: connections are reset, and what the host has behind a device is
// the clone's own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <set>

#include "base/unique_fd.h"
#include "tests/await.h"
#include "tests/control_peer.h"
#include "tests/device_sandbox.h"
#include "tests/host_network.h"
#include "tests/process.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

using ConnectionSnapshotTest = DeviceSandboxTest;

TEST_F(ConnectionSnapshotTest, ConnectionsToTheGuestAreResetAndNewOnesWork) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, kServe), "serving");
  UniqueFd connection = ConnectGuest(Vsock("one"), 5000);
  ASSERT_TRUE(connection.valid());
  EXPECT_EQ(Echo(connection, "before"), "before\n");
  Snapshot(guest, "diff");
  // The parent's goes on.
  EXPECT_EQ(Echo(connection, "after"), "after\n");
  Process* restored = Restore("diff", {"--vsock", Vsock("two")});
  // At once: the client waits for the socket's file, no longer.
  AwaitChange(home_, [&] { return fs::exists(Vsock("two")); });
  UniqueFd fresh;
  while (!fresh.valid()) fresh = ConnectGuest(Vsock("two"), 5000);
  EXPECT_EQ(Echo(fresh, "new"), "new\n");
  EXPECT_EQ(Do(restored, "print(ends)"), "[104]");  // ECONNRESET
  EXPECT_EQ(AskGuest(Vsock("two"), "print(ends)"), "[104]\n");
  // The parent goes back: its connection ends, on both sides, and new ones work.
  Rollback(guest, work_ + "/diff");
  EXPECT_EQ(Receive(connection), "");
  fresh = ConnectGuest(Vsock("one"), 5000);
  ASSERT_TRUE(fresh.valid());
  EXPECT_EQ(Echo(fresh, "new"), "new\n");
  EXPECT_EQ(Do(guest, "print(ends)"), "[104]");
}

TEST_F(ConnectionSnapshotTest, ANetworkIsGivenToACloneOrItsLinkIsDown) {
  const char* carrier = "print(open('/sys/class/net/eth0/carrier').read().strip())";
  const char* address = "print(open('/sys/class/net/eth0/address').read().strip())";
  UniqueFd listener = ListenTcp(5001);
  Process* guest = Clone({"--vsock", Vsock("one"), "--net", "tap=cube0"});
  EXPECT_EQ(Do(guest, carrier), "1");
  const std::string mac = Do(guest, address);
  EXPECT_EQ(Do(guest,
               "import socket\nc = socket.create_connection(('10.77.0.1', 5001))\n"
               "c.sendall(b'x')\nprint('sent')"),
            "sent");
  UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  char byte;
  EXPECT_EQ(read(peer.get(), &byte, 1), 1);
  Snapshot(guest, "diff");
  // One network cannot be two machines'.
  Finished second = RunProcess(Command({"restore", work_ + "/diff", "--net", "tap=cube0"}));
  EXPECT_EQ(second.status, 125);
  EXPECT_NE(second.err.find("TAP cube0: Device or resource busy"), std::string::npos) << second.err;
  Process* alone = Restore("diff", {"--vsock", Vsock("two")});
  EXPECT_EQ(Do(alone, carrier), "0");
  EXPECT_EQ(Do(alone, address), mac);
  Stop(alone);
  Stop(guest);
  peer.Reset();
  Process* restored = Restore("diff", {"--vsock", Vsock("two"), "--net", "tap=cube0"});
  EXPECT_EQ(Do(restored, carrier), "1");
  EXPECT_EQ(Do(restored, address), mac);
  // The connection's other end is gone: an error, not a wait without end.
  EXPECT_EQ(
      Do(restored,
         "c.settimeout(200)\ntry:\n c.sendall(b'y'); print('end' if not c.recv(1) else 'data')\n"
         "except ConnectionError as e: print('end')"),
      "end");
  EXPECT_EQ(Do(restored,
               "c = socket.create_connection(('10.77.0.1', 5001)); c.sendall(b'z'); print('sent')"),
            "sent");
  UniqueFd again(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_EQ(read(again.get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'z');
  Finished more =
      RunProcess(Command({"restore", work_ + "/diff", "--net", "tap=a", "--net", "tap=b"}));
  EXPECT_NE(more.err.find("the guest has only 1 NICs"), std::string::npos) << more.err;
}

// A TAP of this process's network, as somebody hands it to a clone.
UniqueFd OpenTap(const char* name) {
  UniqueFd fd = OpenFile("/dev/net/tun", O_RDWR).value();
  ifreq request = {};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd.get(), TUNSETIFF, &request) < 0) abort();
  return fd;
}

TEST_F(ConnectionSnapshotTest, AZygotesClonesGetTheirNetworkAndSocket) {
  Process zygote(Command({"zygote", template_, "--socket", home_ + "/zygote"}));
  ASSERT_EQ(zygote.WaitForOutput(), "ready\n");
  UniqueFd socket = vmm::ConnectControl(home_ + "/zygote").value();
  std::string buffer;
  auto ask = [&](const std::string& request, const std::vector<int>& descriptors = {}) {
    EXPECT_TRUE(vmm::SendLine(socket.get(), request, descriptors).ok());
    return vmm::ControlRequest::Parse(vmm::ReceiveLine(socket.get(), &buffer).value()).value();
  };
  UniqueFd tap = OpenTap("cube1");
  std::vector<vmm::ControlRequest> answers = {
      ask("{\"op\":\"clone\",\"net\":[\"tap=cube0\"],\"vsock\":\"" + Vsock("a") + "\"}"),
      ask("{\"op\":\"clone\",\"net\":[\"fd=0\"]}", {tap.get()}), ask("{\"op\":\"clone\"}")};
  EXPECT_EQ(answers[0].String("vsock").value(), Vsock("a"));
  std::set<std::string> paths;
  for (const vmm::ControlRequest& answer : answers) {
    ASSERT_TRUE(answer.Bool("ok", false).value()) << answer.String("error", "").value();
    const std::string path = answer.String("vsock").value();
    EXPECT_TRUE(fs::exists(path)) << path;
    paths.insert(path);
    const std::string control = home_ + "/run/" + answer.String("id").value() + ".sock";
    UniqueFd sandbox = vmm::ConnectControl(control).value();
    std::string rest;
    EXPECT_TRUE(vmm::SendLine(sandbox.get(), "{\"op\":\"start\"}").ok());
    auto ready = vmm::ControlRequest::Parse(vmm::ReceiveLine(sandbox.get(), &rest).value()).value();
    EXPECT_TRUE(ready.Bool("ok", false).value());
    // It takes part at once: nobody listens at that port, which the guest's kernel says.
    EXPECT_FALSE(ConnectGuest(path, 9).valid());
  }
  EXPECT_EQ(paths.size(), 3u);
  EXPECT_NE(ask("{\"op\":\"clone\",\"net\":[\"tap=cube0\"]}").String("error").value().find("busy"),
            std::string::npos);
  EXPECT_EQ(ask("{\"op\":\"clone\",\"net\":[\"fd=0\"]}").String("error").value(),
            "\"fd=0\": 0 descriptors came with the request");
  for (const vmm::ControlRequest& answer : answers) {
    EXPECT_EQ(Ask({"stop", answer.String("id").value()}).status, 0);
  }
  EXPECT_TRUE(ask("{\"op\":\"stop\"}").Bool("ok", false).value());
  zygote.Finish();
  for (const std::string& path : paths) {
    AwaitGone(path);
  }
}

}  // namespace
}  // namespace cube::testing
