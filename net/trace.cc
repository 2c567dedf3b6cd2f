#include "net/trace.h"

#include <bpf/libbpf.h>

#include <cstring>
#include <iterator>

namespace cube::net {
namespace {

constexpr const char* kNames[] = {
    "allowed",   "arp",    "no sandbox", "not begun", "malformed",      "vlan",
    "ethertype", "ipv6",   "source",     "options",   "protocol",       "fragment",
    "fixed",     "policy", "host",       "no flow",   "too many flows", "no port",
    "rate",      "ttl",    "too big",    "spoofed",
};
static_assert(std::size(kNames) == bpf::REASONS);

}  // namespace

const char* ReasonName(uint32_t reason) {
  return reason < std::size(kNames) ? kNames[reason] : "unknown";
}

Result<std::unique_ptr<Trace>> Trace::Open(const Programs& programs) {
  std::unique_ptr<Trace> trace(new Trace());
  auto take = [](void* context, void* data, size_t size) {
    auto* self = static_cast<Trace*>(context);
    bpf::trace_event event;
    if (size < sizeof event || self->taken_.size() >= self->limit_) return 0;
    memcpy(&event, data, sizeof event);
    self->taken_.push_back(event);
    return 0;
  };
  trace->ring_ = ring_buffer__new(programs.maps().trace, take, trace.get(), nullptr);
  if (trace->ring_ == nullptr) return ErrnoError("the network's trace");
  return trace;
}

Trace::~Trace() { ring_buffer__free(ring_); }

int Trace::fd() const { return ring_buffer__epoll_fd(ring_); }

std::vector<bpf::trace_event> Trace::Take(size_t limit) {
  taken_.clear();
  limit_ = limit;
  ring_buffer__consume(ring_);
  return std::move(taken_);
}

}  // namespace cube::net
