#include "vmm/cli/sandbox_forks.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "base/monotonic.h"
#include "vmm/cli/control_request.h"

namespace cube::vmm {
namespace {

// A report is written in one piece, which a pipe keeps whole.
constexpr size_t kMaxReport = 4096;

// The reports of a fork, each checked: they come from other processes.
struct Children {
  struct Child {
    std::string id;
    uint64_t pid, made_us, ready_us;
  };
  std::vector<Child> ready;
  std::string error;  // the first that was reported
};

Children ParseReports(const std::string& text) {
  Children children;
  for (size_t start = 0, end; (end = text.find('\n', start)) != std::string::npos;
       start = end + 1) {
    auto report = ControlRequest::Parse(std::string_view(text).substr(start, end - start));
    if (!report.ok()) continue;
    auto id = report->String("id");
    auto error = report->String("error", "");
    auto pid = report->Number("pid", 0, INT32_MAX);
    auto made = report->Number("made_us", 0, UINT32_MAX);
    auto ready = report->Number("ready_us", 0, UINT32_MAX);
    if (id.ok() && pid.ok() && made.ok() && ready.ok()) {
      children.ready.push_back({*id, *pid, *made, *ready});
    } else if (error.ok() && children.error.empty()) {
      children.error = *error;
    }
  }
  return children;
}

}  // namespace

std::string ForkReport(const std::string& id, uint64_t asked, uint64_t made, uint64_t ready) {
  JsonWriter report;
  report.BeginObject().Key("id").String(id).Key("pid").Int(getpid());
  report.Key("made_us").Uint((made - asked) / 1000).Key("ready_us").Uint((ready - asked) / 1000);
  report.EndObject();
  return report.text() + "\n";
}

Result<SandboxForks::Pipe> SandboxForks::MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  Pipe pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  if (fcntl(pipe.reader.get(), F_SETFL, O_NONBLOCK) < 0) return ErrnoError("fcntl");
  return pipe;
}

uint64_t SandboxForks::Multiply(uint64_t count, int report) {
  for (uint64_t i = 0; i < count; ++i) {
    pid_t child = fork();
    if (child == 0) {
      setsid();
      return i;
    }
    if (child > 0) continue;
    std::string text = ErrorAnswer(ErrnoError("fork")) + "\n";
    (void)WriteAll(report, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}, "");
    break;
  }
  _exit(0);
}

SandboxForks::~SandboxForks() {
  for (auto& [fd, pending] : pending_) loop_->Remove(fd);
}

Status SandboxForks::Await(Pending pending) {
  int fd = pending.reports.get();
  CUBE_TRY(loop_->Add(fd, EPOLLIN, [this, fd](uint32_t) { OnReport(fd); }));
  pending_.emplace(fd, std::move(pending));
  return OkStatus();
}

void SandboxForks::OnReport(int fd) {
  auto found = pending_.find(fd);
  if (found == pending_.end()) return;
  Pending& pending = found->second;
  char piece[kMaxReport];
  ssize_t n = read(fd, piece, sizeof piece);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) {
    pending.text.append(piece, static_cast<size_t>(n));
    if (pending.text.size() <= (pending.count + 1) * kMaxReport) return;
  }
  loop_->Remove(fd);
  waitpid(pending.forker, nullptr, 0);
  Children children = ParseReports(pending.text);
  JsonWriter answer;
  bool complete = children.ready.size() == pending.count;
  answer.BeginObject().Key("ok").Bool(complete);
  if (!complete) {
    answer.Key("error").String(
        Format("%zu of %llu clones came up: %s", children.ready.size(),
               static_cast<unsigned long long>(pending.count),
               children.error.empty() ? "the others died" : children.error.c_str()));
  }
  answer.Key("clones").BeginArray();
  for (const Children::Child& child : children.ready) {
    answer.BeginObject().Key("id").String(child.id).Key("pid").Uint(child.pid);
    answer.Key("made_ms").Double(static_cast<double>(child.made_us) / 1000);
    answer.Key("ready_ms").Double(static_cast<double>(child.ready_us) / 1000).EndObject();
  }
  answer.EndArray();
  answer.Key("pause_ms").Double(pending.pause_ms);
  answer.Key("total_ms").Double(Milliseconds(pending.asked, MonotonicNow())).EndObject();
  if (server_->IsOpen(pending.to)) (void)pending.to->Send(answer.text());
  pending_.erase(found);
}

}  // namespace cube::vmm
