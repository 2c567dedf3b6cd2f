#ifndef CUBE_NET_REAPER_H_
#define CUBE_NET_REAPER_H_

#include <cstdint>
#include <vector>

#include "net/programs.h"

namespace cube::net {

// Takes what is over out of the kernel's tables: flows that were silent for too long, or whose
// sandbox is gone, names that lead to none of them, addresses and ports that are closed. The
// programs take nothing for alive that is over; this only makes room, and counts what there is. On
// one thread.
class Reaper {
 public:
  struct Statistics {
    uint64_t passes = 0;
    uint64_t flows = 0;   // in the last whole pass
    uint64_t reaped = 0;  // ever
  };

  // `programs` outlives it.
  explicit Reaper(Programs* programs);

  // A part of a pass: some thousand entries. True if the pass is over with it.
  bool Step();
  const Statistics& statistics() const { return statistics_; }

 private:
  enum class Stage { kFlows, kFlows6, kNames, kNames6, kRest };
  // Reads some entries of a table; false if those were the last.
  template <typename Key, typename Value, typename Each>
  bool Read(int map, const Each& each);
  // Of one family's types.
  template <typename Key, typename Flow>
  bool IsAlive(const Key& key, const Flow& flow, uint64_t now) const;
  template <typename Key, typename Flow, typename Name>
  bool StepFlows(int flows, int names, uint64_t now);
  template <typename Key, typename Flow, typename Name>
  bool StepNames(int flows, int names);
  template <typename Key>
  void SweepOpened(int map, uint64_t now);
  void PublishCounts();
  void SweepRest(uint64_t now);

  Programs* programs_;
  Stage stage_ = Stage::kFlows;
  bool begun_ = false;   // `cursor_` says where a table is to be gone on with
  uint32_t cursor_ = 0;  // the kernel's
  std::vector<uint32_t> counts_;
  Statistics statistics_;
};

}  // namespace cube::net

#endif  // CUBE_NET_REAPER_H_
