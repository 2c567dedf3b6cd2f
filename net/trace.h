#ifndef CUBE_NET_TRACE_H_
#define CUBE_NET_TRACE_H_

#include <memory>
#include <vector>

#include "base/result.h"
#include "net/programs.h"

struct ring_buffer;

namespace cube::net {

// The verdicts that the programs tell of while they are asked to (Fabric::SetTrace()). What nobody
// takes in time is lost. On one thread.
class Trace {
 public:
  static Result<std::unique_ptr<Trace>> Open(const Programs& programs);
  ~Trace();

  // Readable while there are some.
  int fd() const;
  // At most `limit`; what is there beyond is dropped.
  std::vector<bpf::trace_event> Take(size_t limit);

 private:
  Trace() = default;

  ring_buffer* ring_ = nullptr;
  std::vector<bpf::trace_event> taken_;
  size_t limit_ = 0;
};

// The word for a reason: "allowed", "policy", ...; all of them, for who counts them.
const char* ReasonName(uint32_t reason);

}  // namespace cube::net

#endif  // CUBE_NET_TRACE_H_
