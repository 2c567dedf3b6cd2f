#ifndef CUBE_NET_FABRIC_H_
#define CUBE_NET_FABRIC_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/fixed_set.h"
#include "net/netlink.h"
#include "net/policy.h"
#include "net/programs.h"
#include "net/rule_table.h"

namespace cube::net {

// The one configuration that every guest has.
inline constexpr char kGuestAddress[] = "169.254.0.21/30";
inline constexpr char kGatewayAddress[] = "169.254.0.22";
inline constexpr char kGuestMac[] = "02:cb:00:00:00:15";
inline constexpr uint32_t kGuestMtu = 1500;

struct FabricOptions {
  std::string uplink;                       // an interface; empty: that of the default route
  std::string prefix = "cube";              // of the names of interfaces that are made
  std::string pins = "/sys/fs/bpf/cube";    // where maps are pinned; empty: nowhere
  Network host_network = {0xc6120000, 16};  // 198.18.0.0/16: sandboxes, as the host knows them
  uint16_t first_port = 10240, last_port = 32767;  // sources of what sandboxes send
  std::vector<Network> exceptions;                 // from what is denied to all
  std::vector<Network> snat;   // addresses to send from; none: the uplink's first
  uint32_t max_flows = 16384;  // of one sandbox
  uint16_t resolver_port = 0;  // of the host-side address; 0: none
  uint16_t peek_port = 0;
  uint16_t peek_port6 = 0;
  bool ipv6 = false;                  // carried where the uplink has a global address of it
  std::vector<Network6> exceptions6;  // likewise
  uint32_t owner = 0;                 // the user who may open TAPs
};

// A TAP that is lent to a machine which has no sandbox yet.
struct LentTap {
  uint32_t slot = 0;
  std::string name;
  UniqueFd fd;  // with a virtio header before each frame
};

struct Traffic {
  uint64_t packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0, denied = 0, flows = 0;
};

// The network of one node. What it knows of sandboxes is in the kernel's maps and interfaces, so
// that a daemon that is started again finds it as it was, and packets flow meanwhile. In the
// network namespace in which it was opened, on one thread.
class Fabric {
 public:
  // Errors say what the host lacks; then there is no network, and sandboxes have none.
  static Result<std::unique_ptr<Fabric>> Open(FabricOptions options);

  // Makes TAPs, attached and mute, until so many are free.
  Status Fill(uint32_t count);
  // One of them, or a new one, for a machine. It is free again when it is given back, or, if the
  // daemon dies, when the machine does.
  Result<LentTap> Lend();
  void GiveBack(uint32_t slot);
  // From here on the slot is the sandbox's; nothing gets through yet. `id`: of at most
  // CUBE_ID_SIZE - 1 characters.
  Status Assign(uint32_t slot, const std::string& id);

  // Has the policy in force for the sandbox, from the next packet on and as a whole; a sandbox
  // without a TAP gets one. Doing it again changes nothing.
  Status EnsureNetwork(const std::string& id, const Policy& policy);
  // Ends all that the sandbox has: its flows, its ports, its rules; the TAP is free. No such
  // sandbox is no error.
  void ReleaseNetwork(const std::string& id);

  // Of IPv4 and, where it is carried, of IPv6.
  Status MapPort(const std::string& id, const PortMapping& mapping);
  Status UnmapPort(uint8_t protocol, uint16_t host_port);
  std::vector<PortMapping> Ports(const std::string& id) const;

  // Lets a name's address be reached for a while: by the resolver. Network order.
  void OpenAddress(uint32_t slot, uint32_t address, uint32_t seconds);
  void OpenAddress6(uint32_t slot, const bpf::address6& address, uint32_t seconds);

  // Ids and slots of all sandboxes that have one.
  const std::map<std::string, uint32_t>& sandboxes() const { return sandboxes_; }
  std::optional<uint32_t> SlotOf(const std::string& id) const;
  // Of a slot that a sandbox has; nothing if its policy is not known since a restart.
  const Policy* PolicyOf(uint32_t slot) const;
  // Whose it is; empty if nobody's. By the address that the host knows it by, network order.
  uint32_t SlotByAddress(uint32_t host_address) const;
  uint32_t SlotByAddress6(const bpf::address6& host_address) const;
  bpf::slot SlotState(uint32_t slot) const { return programs_->slots()[slot]; }
  std::string TapName(uint32_t slot) const;
  Traffic TrafficOf(uint32_t slot) const;
  size_t free_taps() const { return free_.size(); }

  // Takes some of what policies that are no more in force have left out of the kernel's table: it
  // need not be waited for. True if nothing is left to be done.
  bool Tidy();
  // Addresses of the host change: they are denied, and the uplink's may be what is sent from.
  Status RefreshAddresses();
  // Which reasons `cube net trace` is told of; 0: none.
  void SetTrace(uint32_t reasons);
  void SetProxyPorts(uint16_t resolver_port, uint16_t peek_port, uint16_t peek_port6 = 0);

  Programs& programs() { return *programs_; }
  const FixedSet& fixed() const { return fixed_; }
  const FixedSet6& fixed6() const { return fixed6_; }
  // Why guests' IPv6 is refused; empty if it is carried.
  std::string WhyNoIpv6() const;
  // By which the host knows a slot's guest, if IPv6 is carried.
  bpf::address6 HostAddress6(uint32_t slot) const { return ToWire(kHostAddress6 + slot); }
  // Whether the host has kHostAddress6, be IPv6 carried or not.
  bool has_host_address6() const { return options_.ipv6 && host_lacks_ipv6_.empty(); }
  // The host's own address, as guests' traffic to its proxies goes to. Network order.
  uint32_t host_address() const { return settings_.host_address; }
  const std::string& uplink_name() const { return options_.uplink; }

  // Takes down everything: interfaces, programs, pins. For who leaves for good.
  static void Remove(const FabricOptions& options);

 private:
  Fabric(FabricOptions options, Netlink netlink, std::unique_ptr<Programs> programs);

  struct Rules {
    std::vector<CompiledRule> v4;
    std::vector<CompiledRule6> v6;
  };

  Status SetUpHost();
  Status SetUpHostIpv6(const std::string& device);
  Status RefreshAddresses6();
  Status FindUplink();
  Status WriteSettings();
  Status Recover();
  Status MakeSlot(uint32_t slot);
  Result<LentTap> LendSlot(uint32_t slot);
  Result<uint32_t> FreeSlot();
  uint32_t NextGeneration();
  void Clear(uint32_t slot);
  void Retire(uint32_t generation, Rules rules);
  void RemoveOldest();
  void RemoveOtherRules(const std::set<uint32_t>& generations);
  bpf::slot& At(uint32_t slot) { return programs_->slots()[slot]; }

  struct Retired {
    uint64_t since = 0;  // CLOCK_MONOTONIC nanoseconds
    uint32_t generation = 0;
    Rules rules;
  };
  struct InForce {
    Policy policy;
    uint32_t generation = 0;
    Rules rules;
  };

  FabricOptions options_;
  Netlink netlink_;
  std::unique_ptr<Programs> programs_;
  RuleTable rules_;
  RuleTable6 rules6_;
  FixedSet fixed_;
  FixedSet6 fixed6_;
  std::string host_lacks_ipv6_;  // why
  bpf::settings settings_ = {};
  uint32_t generation_ = 0;
  uint32_t made_ = 0;        // slots 1 to this have been made
  std::set<uint32_t> free_;  // made, of no sandbox, not lent
  // Descriptors of free ones. A TAP that somebody has open is a link that is up, and the kernel
  // takes its time to find that out: until then it drops what comes for it.
  std::map<uint32_t, UniqueFd> open_;
  std::set<uint32_t> lent_;
  std::map<std::string, uint32_t> sandboxes_;
  std::map<uint32_t, InForce> policies_;
  std::deque<Retired> retired_;
};

}  // namespace cube::net

#endif  // CUBE_NET_FABRIC_H_
