#include "vmm/cli/guest_session.h"

#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

namespace cube::vmm {
namespace {

template <typename T>
void AppendObject(std::string* out, const T& object) {
  out->append(reinterpret_cast<const char*>(&object), sizeof object);
}

template <typename T>
std::optional<T> ParseObject(std::span<const uint8_t> bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T object;
  memcpy(&object, bytes.data(), sizeof object);
  return object;
}

const char* StreamName(abi::RingId stream) {
  return stream == abi::RingId::kStdout ? "stdout" : "stderr";
}

}  // namespace

GuestSession::GuestSession(EventLoop* loop, std::span<uint8_t> mailbox, int input,
                           Callbacks callbacks)
    : loop_(loop),
      input_(input),
      callbacks_(std::move(callbacks)),
      to_guest_(OpenRing<RingProducer>(mailbox.data(), abi::RingId::kToGuest)),
      from_guest_(OpenRing<RingConsumer>(mailbox.data(), abi::RingId::kFromGuest)),
      stdin_(OpenRing<RingProducer>(mailbox.data(), abi::RingId::kStdin)),
      stdout_(OpenRing<RingConsumer>(mailbox.data(), abi::RingId::kStdout)),
      stderr_(OpenRing<RingConsumer>(mailbox.data(), abi::RingId::kStderr)) {
  if (input_ < 0) {
    input_done_ = true;
    stdin_.End();
  }
}

GuestSession::~GuestSession() { WatchInput(false); }

Status GuestSession::Start(const GuestCommand& command) {
  std::string payload;
  std::vector<std::string> arguments = command.arguments;
  if (!command.user.empty()) {
    const std::string words[] = {abi::kAgentProgram, "as", command.user, "--"};
    arguments.insert(arguments.begin(), std::begin(words), std::end(words));
  }
  abi::StartHeader start = {};
  start.flags = command.on_console ? abi::kStartOnConsole : 0;
  start.argument_count = static_cast<uint32_t>(arguments.size());
  start.variable_count = static_cast<uint32_t>(command.environment.size());
  start.rows = command.rows;
  start.columns = command.columns;
  AppendObject(&payload, start);
  for (const auto* strings : {&std::as_const(arguments), &command.environment}) {
    for (const std::string& text : *strings) payload.append(text.c_str(), text.size() + 1);
  }
  payload.append(command.directory.c_str(), command.directory.size() + 1);
  if (payload.size() > abi::kMaxFrameSize) {
    return Errorf("arguments and environment of %zu bytes are more than %u", payload.size(),
                  abi::kMaxFrameSize);
  }
  AppendObject(&requests_, abi::FrameHeader{static_cast<uint32_t>(abi::FrameType::kStart),
                                            static_cast<uint32_t>(payload.size())});
  requests_ += payload;
  started_ = true;
  return Pump();
}

Status GuestSession::Pump() {
  CUBE_TRY(PumpControl());
  CUBE_TRY(PumpOutput(abi::RingId::kStdout, &stdout_));
  CUBE_TRY(PumpOutput(abi::RingId::kStderr, &stderr_));
  PumpRequests();
  PumpInput();
  if (to_guest_.broken() || stdin_.broken()) {
    return Errorf("the guest broke the mailbox: its index of an input ring is out of range");
  }
  if (std::exchange(wake_, false)) callbacks_.wake_agent();
  return OkStatus();
}

bool GuestSession::OutputDrained() {
  return (output_gone_[0] || stdout_.Available() == 0) &&
         (output_gone_[1] || stderr_.Available() == 0);
}

Status GuestSession::PumpControl() {
  for (;;) {
    uint8_t buffer[4096];
    bool wake_producer = false;
    uint32_t size = from_guest_.Read(buffer, &wake_producer);
    wake_ = wake_ || wake_producer;
    if (from_guest_.broken()) {
      return Errorf("the guest broke the mailbox: its index of the control ring is out of range");
    }
    if (size == 0) return OkStatus();
    frame_.append(reinterpret_cast<const char*>(buffer), size);
    auto bytes = [&] {
      return std::span(reinterpret_cast<const uint8_t*>(frame_.data()), frame_.size());
    };
    while (auto header = ParseObject<abi::FrameHeader>(bytes())) {
      if (header->size > abi::kMaxFrameSize) {
        return Errorf("the guest broke the mailbox: a frame of %u bytes is more than %u",
                      header->size, abi::kMaxFrameSize);
      }
      if (frame_.size() < sizeof *header + header->size) break;
      CUBE_TRY(HandleFrame(static_cast<abi::FrameType>(header->type),
                           bytes().subspan(sizeof *header, header->size)));
      frame_.erase(0, sizeof *header + header->size);
    }
  }
}

Status GuestSession::HandleFrame(abi::FrameType type, std::span<const uint8_t> payload) {
  switch (type) {
    case abi::FrameType::kStarted:
      if (auto started = ParseObject<abi::StartedPayload>(payload)) {
        callbacks_.started(started->pid);
        return OkStatus();
      }
      break;
    case abi::FrameType::kStartFailed:
      if (auto failed = ParseObject<abi::FailedPayload>(payload)) {
        auto text = payload.subspan(sizeof *failed);
        callbacks_.start_failed(failed->error,
                                std::string(reinterpret_cast<const char*>(text.data()),
                                            std::min<size_t>(text.size(), 1024)));
        return OkStatus();
      }
      break;
    case abi::FrameType::kExited:
      return OkStatus();  // the EXIT command follows and says the same
    default:
      break;
  }
  return Errorf("the guest broke the mailbox: frame type %u of %zu bytes",
                static_cast<uint32_t>(type), payload.size());
}

Status GuestSession::PumpOutput(abi::RingId stream, RingConsumer* ring) {
  bool& gone = output_gone_[stream == abi::RingId::kStdout ? 0 : 1];
  while (!gone) {
    uint32_t available = ring->Available();
    if (ring->broken()) {
      return Errorf("the guest broke the mailbox: its index of the %s ring is out of range",
                    StreamName(stream));
    }
    if (available == 0) break;
    // One contiguous area at a time, copied before use: the guest may still write to it.
    uint8_t buffer[16384];
    auto area = ring->Bytes(std::min<uint32_t>(available, sizeof buffer))[0];
    std::copy(area.begin(), area.end(), buffer);
    size_t taken = callbacks_.output(stream, {buffer, area.size()});
    if (taken > 0 && ring->Release(static_cast<uint32_t>(taken))) wake_ = true;
    if (callbacks_.output_closed(stream)) {
      // As with a pipe: the command's next write there ends with SIGPIPE.
      gone = true;
      ring->Leave();
      wake_ = true;
      break;
    }
    if (taken < area.size()) break;
  }
  return OkStatus();
}

void GuestSession::PumpRequests() {
  while (!requests_.empty()) {
    uint32_t written =
        to_guest_.Write({reinterpret_cast<const uint8_t*>(requests_.data()), requests_.size()});
    if (written == 0) {
      to_guest_.WaitForSpace();
      if (to_guest_.Free() == 0) return;
      continue;
    }
    wake_ = true;
    requests_.erase(0, written);
  }
}

void GuestSession::PumpInput() {
  if (started_ && !input_done_ && stdin_.ConsumerGone()) input_done_ = true;
  while (started_ && !input_done_) {
    if (stdin_.Free() == 0) {
      if (stdin_.broken()) break;
      stdin_.WaitForSpace();
      if (stdin_.Free() == 0) break;
    }
    if (input_waitable_) {
      WatchInput(true);
      if (input_waitable_) return;
    }
    ReadInput();
  }
  WatchInput(false);
}

void GuestSession::ReadInput() {
  auto areas = stdin_.Space(stdin_.Free());
  const iovec vectors[2] = {{areas[0].data(), areas[0].size()}, {areas[1].data(), areas[1].size()}};
  ssize_t n = readv(input_, vectors, 2);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n > 0) {
    stdin_.Publish(static_cast<uint32_t>(n));
  } else {
    // The end, or a descriptor that cannot be read: for the command both are the end.
    input_done_ = true;
    stdin_.End();
  }
  wake_ = true;
}

void GuestSession::WatchInput(bool wanted) {
  if (wanted == input_watched_) return;
  if (!wanted) {
    loop_->Remove(input_);
    input_watched_ = false;
    return;
  }
  Status added = loop_->Add(input_, EPOLLIN, [this](uint32_t) {
    if (stdin_.Free() != 0) ReadInput();
    PumpInput();
    if (std::exchange(wake_, false)) callbacks_.wake_agent();
  });
  // Files and /dev/null cannot be waited for: they are always ready.
  input_waitable_ = input_watched_ = added.ok();
}

}  // namespace cube::vmm
