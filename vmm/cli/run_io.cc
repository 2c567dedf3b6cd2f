#include "vmm/cli/run_io.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstdio>
#include <string_view>

#include "base/byte_io.h"
#include "vmm/cli/run_options.h"

namespace cube::vmm {
namespace {

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// How much of `text` can be shown now: a character cut in two at its end is left for the next
// piece.
size_t WholeCharacters(std::string_view text) {
  if (IsUtf8(text)) return text.size();
  for (size_t cut = 1; cut <= 3 && cut < text.size(); ++cut) {
    if (IsUtf8(text.substr(0, text.size() - cut))) return text.size() - cut;
  }
  return text.size();
}

}  // namespace

Status RunIo::SetUp(EventLoop* loop, SandboxLog* log) {
  loop_ = loop;
  log_ = log;
  if (!options_.console.empty() && options_.console != "-") {
    CUBE_ASSIGN(console_file_, OpenFile(options_.console, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  }
  if (!options_.interactive && options_.console.empty()) return OkStatus();
  CUBE_ASSIGN(console_event_, NewEventFd());
  console_.SetForward([this] { SignalEventFd(console_event_.get()); });
  CUBE_TRY(loop_->Add(console_event_.get(), EPOLLIN, [this](uint32_t) {
    DrainEventFd(console_event_.get());
    ForwardConsole();
  }));
  if (!options_.interactive) return OkStatus();
  CUBE_ASSIGN(RawTerminal raw, RawTerminal::Enter(STDIN_FILENO));
  terminal_.emplace(std::move(raw));
  fprintf(stderr, "cube-vmm: booting; leave with Ctrl-A x\r\n");
  return loop_->Add(STDIN_FILENO, EPOLLIN, [this](uint32_t) { OnTyped(); });
}

void RunIo::Close() {
  if (options_.interactive || !options_.console.empty()) ForwardConsole();
  // What follows is for a terminal that starts its lines at the left again.
  terminal_.reset();
}

size_t RunIo::TakeOutput(abi::RingId stream, std::span<const uint8_t> bytes, bool last) {
  bool is_stdout = stream == abi::RingId::kStdout;
  if (options_.json) return EmitOutput(is_stdout, bytes, last);
  if (log_ != nullptr) {
    log_->Write(bytes);
    return bytes.size();
  }
  Output* output = is_stdout ? &stdout_ : &stderr_;
  size_t taken = output->sink.Write(bytes);
  WatchOutput(output, taken < bytes.size() && !output->sink.closed());
  return taken;
}

bool RunIo::OutputClosed(abi::RingId stream) const {
  return stream == abi::RingId::kStdout ? stdout_.sink.closed() : stderr_.sink.closed();
}

size_t RunIo::EmitOutput(bool is_stdout, std::span<const uint8_t> bytes, bool last) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!last) text = text.substr(0, WholeCharacters(text));
  JsonWriter json;
  json.BeginObject().Key("event").String(is_stdout ? "stdout" : "stderr");
  if (IsUtf8(text)) {
    json.Key("text").String(text);
  } else {
    json.Key("base64").String(Base64(text));
  }
  json.EndObject();
  EmitJson(json);
  return text.size();
}

void RunIo::EmitJson(const JsonWriter& json) {
  Status written = WriteAll(STDOUT_FILENO, Bytes(json.text() + "\n"), "stdout");
  if (!written.ok()) owner_.finish(kStatusVmmError, written.error().message());
}

void RunIo::WatchOutput(Output* output, bool wanted) {
  if (wanted == output->watched) return;
  output->watched = wanted;
  if (!wanted) {
    loop_->Remove(output->sink.fd());
    return;
  }
  Status added = loop_->Add(output->sink.fd(), EPOLLOUT, [this](uint32_t) { owner_.room(); });
  if (!added.ok()) owner_.finish(kStatusVmmError, added.error().message());
}

void RunIo::ForwardConsole() {
  std::string text = console_.Take();
  if (text.empty()) return;
  int fd = console_file_.valid()  ? console_file_.get()
           : options_.interactive ? STDOUT_FILENO
                                  : STDERR_FILENO;
  Status written = WriteAll(fd, Bytes(text), "the console's output");
  if (!written.ok()) owner_.finish(kStatusVmmError, written.error().message());
}

void RunIo::OnTyped() {
  uint8_t buffer[256];
  ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    owner_.finish(0, "");
    return;
  }
  bool leave = false;
  std::string text = escape_.Filter({buffer, static_cast<size_t>(n)}, &leave);
  owner_.typed(Bytes(text));
  if (leave) owner_.finish(0, "");
}

}  // namespace cube::vmm
