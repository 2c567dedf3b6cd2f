#ifndef CUBE_POOL_JAIL_DEMOTION_H_
#define CUBE_POOL_JAIL_DEMOTION_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace cube::pool {

// Which machines have wanted a processor for long without a pause, and so come behind those that
// want one now and then: a guest that computes takes what the others leave, and no create and no
// short command waits for its turn. It is the wish that counts, not what it got. On one thread.
class Demotion {
 public:
  struct Wish {
    uint64_t run_ns = 0;     // of all threads, what they ran
    uint64_t wanted_ns = 0;  // of the thread that wanted most, what it ran and what it waited for
  };
  struct Change {
    std::string id;
    bool is_behind;
  };
  // What a process has run so far, and, if `all`, what it has wanted; nothing if it is gone.
  using Ask = std::function<std::optional<Wish>(pid_t pid, bool all)>;

  explicit Demotion(Ask ask = WishOf) : ask_(std::move(ask)) {}

  void Add(const std::string& id, pid_t pid) { machines_[id] = {.pid = pid}; }
  void Remove(const std::string& id) { machines_.erase(id); }
  bool empty() const { return machines_.empty(); }

  // To be called now and then: what is otherwise now. `now_ns`: CLOCK_MONOTONIC.
  std::vector<Change> Look(uint64_t now_ns);

  // By the process's clock, and by /proc/PID/task/*/schedstat.
  static std::optional<Wish> WishOf(pid_t pid, bool all);

 private:
  struct Machine {
    pid_t pid = 0;
    bool is_behind = false;
    uint64_t seen_ns = 0;  // when; 0: not yet
    uint64_t run_ns = 0;
    std::optional<uint64_t> wanted_ns;  // nothing if it was not asked for
    int calm = 0;                       // looks at which it wanted little, in a row
  };
  bool LookAt(Machine* machine, uint64_t now_ns) const;

  Ask ask_;
  std::map<std::string, Machine> machines_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_DEMOTION_H_
