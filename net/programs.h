#ifndef CUBE_NET_PROGRAMS_H_
#define CUBE_NET_PROGRAMS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "base/mapping.h"
#include "base/result.h"
#include "net/bpf/maps.h"

struct bpf_program;
struct fabric_bpf;
struct fabric6_bpf;
struct fragments6_bpf;

namespace cube::net {

// The programs of net/bpf in the kernel, and their maps. Maps are pinned in a folder of the BPF
// file system, by the version of their layout, and are those of a daemon before this one if there
// was one. The programs are new each time, and take the place of older ones where they are
// attached. On one thread.
class Programs {
 public:
  // `folder`: beneath a mounted BPF file system; empty: nothing is pinned. Errors say what the host
  // lacks, or what the verifier says. Without `ipv6` all of IPv6 is refused, and there are no maps
  // of it.
  static Result<std::unique_ptr<Programs>> Load(const std::string& folder, bool ipv6 = false);
  ~Programs();

  // To the interface with that index, in place of what was there before.
  Status AttachSandbox(uint32_t tap);
  Status AttachUplink(uint32_t uplink);
  Status AttachHost(uint32_t device);
  // What AttachUplink() has attached, be it by another process.
  static void DetachUplink(uint32_t uplink);

  // Whose the TAP with that index is, for from_sandbox; that it is nobody's any more.
  Status SetTap(uint32_t tap, uint32_t slot);
  void ForgetTap(uint32_t tap);

  // Descriptors of the maps.
  struct Maps {
    int settings, slots, taps, near_taps, counters, reasons, flows, reverse, fragments, rules,
        fixed, opened, ports, meters, trace;
  };
  const Maps& maps() const { return maps_; }
  // Likewise those that IPv6 has of its own; -1 if there is none.
  struct Maps6 {
    int flows = -1, reverse = -1, rules = -1, fixed = -1, opened = -1, fragments = -1;
  };
  const Maps6& maps6() const { return maps6_; }
  bool ipv6() const { return maps6_.flows >= 0; }
  // The table `slots`, of CUBE_MAX_SLOTS.
  bpf::slot* slots() const { return reinterpret_cast<bpf::slot*>(slots_.data()); }
  // The programs' descriptors, and that of the table of those for IPv6, for tests and figures.
  int families() const;
  int from_sandbox() const;
  int from_world() const;
  int from_host() const;
  int early_filter() const;

  // Removes everything that Load() has pinned in `folder`.
  static void Unpin(const std::string& folder);

 private:
  explicit Programs(fabric_bpf* skeleton) : skeleton_(skeleton) {}
  // `place`: where maps are pinned, or empty. `carried`: else everything is refused.
  Status LoadIpv6(const std::string& place, bool carried);
  // Those of IPv6 for fragments; without them fragments are refused.
  Status LoadFragments();
  // Makes these what the programs before hand over to by `first` and the numbers after it.
  Status HandOver(uint32_t first, const bpf_program* const (&programs)[3]);

  fabric_bpf* skeleton_;
  fabric6_bpf* skeleton6_ = nullptr;
  fragments6_bpf* fragments6_ = nullptr;
  Maps maps_ = {};
  Maps6 maps6_;
  Mapping slots_;
};

// Mounts the BPF file system at `path`, if it is not. For who has a mount namespace of its own, and
// for hosts that have it nowhere.
Status MountBpf(const std::string& path);

}  // namespace cube::net

#endif  // CUBE_NET_PROGRAMS_H_
