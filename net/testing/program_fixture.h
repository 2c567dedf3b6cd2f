#ifndef CUBE_NET_TESTING_PROGRAM_FIXTURE_H_
#define CUBE_NET_TESTING_PROGRAM_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "net/bpf/maps.h"
#include "net/netlink.h"
#include "net/policy.h"
#include "net/programs.h"
#include "net/testing/packet6.h"

namespace cube::net::testing {

inline constexpr int kOk = 0, kShot = 2, kRedirect = 7, kUnspecified = -1;

// This process goes into a network and a mount namespace of its own, once, with loopback up and a
// BPF file system at /sys/fs/bpf.
Status EnterNamespace();

// What a program has made of a frame.
struct Outcome {
  int action = 0;
  Bytes frame;
  Seen seen;
  Seen6 seen6;
};

// The programs, loaded and run by BPF_PROG_TEST_RUN on frames, in a network namespace of its own:
// slot 1 has the TAP "tap1", slot 2 "tap2", the uplink is "up" with 203.0.113.1, the host-side
// device "host" with 198.18.0.1. Both slots may reach everything unless a test says otherwise. By
// IPv6 they send from kSelf6.
class ProgramFixture : public ::testing::Test {
 protected:
  static constexpr const char* kWorld = "192.0.2.80";
  static constexpr const char* kWorld6 = "2001:db8:80::80";
  static constexpr const char* kSelf6 = "2001:db8:1::1";
  static constexpr const char* kGuest6 = "fdcb:6375:6265::15";
  static constexpr const char* kGateway6 = "fdcb:6375:6265::16";
  static constexpr const char* kHost6 = "fdcb:6375:6265:1::1";
  static constexpr const char* kSlot6 = "fdcb:6375:6265:1::2";  // the first one's
  static inline const Bytes kGuestMac = {0x02, 0xcb, 0, 0, 0, 0x15};
  static inline const Bytes kGatewayMac = {0x02, 0xcb, 0, 0, 0, 0x16};

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;

  // `frame` comes from the TAP of `slot`, out of the uplink, or from the host.
  Outcome FromSandbox(const Bytes& frame, uint32_t slot = 1);
  Outcome FromWorld(const Bytes& frame);
  // `came`: where the host forwards it from; 0: it is the host's own.
  Outcome FromHost(const Bytes& frame, uint32_t came = 0);
  Outcome Early(const Bytes& frame);
  // `segment`: how much of the frame a device is to send at once; 0: all.
  static Outcome Run(int program, const Bytes& frame, uint32_t ifindex, uint32_t segment = 0,
                     uint32_t came = 0);

  static Frame6 Out6(uint8_t protocol, const char* target, uint16_t port, uint16_t from = 4000);
  static Frame6 In6(uint8_t protocol, const char* source, uint16_t port, uint16_t to);
  // A frame of the guest's to `target`, and one of the world's to the host.
  static Frame Out(uint8_t protocol, const char* target, uint16_t port, uint16_t from = 4000);
  static Frame In(uint8_t protocol, uint32_t source, uint16_t port, uint32_t target, uint16_t to);

  // That the guest was told that what it sent is prohibited (RFC 4443): what is quoted of it.
  static Seen6 ExpectProhibited6(const Outcome& outcome);

  void SetPolicy(uint32_t slot, const Policy& policy);
  void SetPolicy(uint32_t slot, const std::vector<std::string>& allow,
                 const std::vector<std::string>& deny, bool internet);
  // Leads a port of the host's to one of a slot's guest.
  void MapPort(uint8_t protocol, uint16_t host_port, uint32_t number, uint16_t port);
  bpf::slot* slot(uint32_t number) { return &programs_->slots()[number]; }
  // How often a reason was given so far.
  static uint64_t Count(bpf::reason reason);
  // True if `act` gives that reason once.
  template <typename Act>
  static bool Gives(bpf::reason reason, const Act& act) {
    uint64_t before = Count(reason);
    act();
    return Count(reason) == before + 1;
  }
  // The flow that a guest's frame belongs to; false if there is none.
  static bool FindFlow(uint32_t slot, uint8_t protocol, uint32_t remote, uint16_t remote_port,
                       uint16_t local_port, bpf::flow* flow);

  static std::unique_ptr<Programs> programs_;
  static bpf::settings settings_;
  static uint32_t generation_;
};

}  // namespace cube::net::testing

#endif  // CUBE_NET_TESTING_PROGRAM_FIXTURE_H_
