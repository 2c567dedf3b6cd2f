#include "snapshot/lazy_server.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace cube::snapshot {
namespace {

constexpr uint64_t kPage = 4096;

Result<UniqueFd> OpenUserfaultfd() {
  UniqueFd faults(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!faults.valid()) {
    return ErrnoError("userfaultfd (needs CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1)");
  }
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM;
  if (ioctl(faults.get(), UFFDIO_API, &api) < 0) return ErrnoError("UFFDIO_API with shared memory");
  return faults;
}

}  // namespace

Result<std::unique_ptr<LazyServer>> LazyServer::Start(std::shared_ptr<ColdImage> image,
                                                      Failed failed) {
  CUBE_ASSIGN(UniqueFd faults, OpenUserfaultfd());
  CUBE_ASSIGN(UniqueFd stop, NewEventFd());
  std::unique_ptr<LazyServer> server(
      new LazyServer(std::move(image), std::move(failed), std::move(faults), std::move(stop)));
  // Signals are for the other threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  server->thread_ = std::thread([raw = server.get()] { raw->Serve(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return server;
}

LazyServer::~LazyServer() { Join(); }

void LazyServer::Join() {
  if (!thread_.joinable()) return;
  SignalEventFd(stop_.get());
  thread_.join();
}

Status LazyServer::Register(std::span<uint8_t> mapping, uint64_t offset) {
  if (!thread_.joinable()) return OkStatus();  // all is loaded
  auto start = reinterpret_cast<uint64_t>(mapping.data());
  {
    std::lock_guard lock(mutex_);
    // What is mapped over is no longer there to fault.
    std::erase_if(ranges_, [&](const Range& range) {
      return range.start >= start && range.start + range.size <= start + mapping.size();
    });
    ranges_.push_back({start, mapping.size(), offset});
  }
  uffdio_register argument = {};
  argument.range = {start, mapping.size()};
  argument.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(faults_.get(), UFFDIO_REGISTER, &argument) < 0) return ErrnoError("UFFDIO_REGISTER");
  return OkStatus();
}

Status LazyServer::LoadAll() {
  if (!thread_.joinable()) return OkStatus();
  CUBE_TRY(image_->LoadAll());
  Join();
  // Ends every registration, and wakes who waits.
  faults_.Reset();
  stop_.Reset();
  return OkStatus();
}

void LazyServer::Serve() {
  for (;;) {
    pollfd waits[] = {{faults_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (poll(waits, 2, -1) < 0 && errno != EINTR) {
      failed_(ErrnoError("waiting for page faults"));
      return;
    }
    if (waits[1].revents != 0) return;
    uffd_msg message;
    ssize_t n = read(faults_.get(), &message, sizeof message);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n != sizeof message || message.event != UFFD_EVENT_PAGEFAULT) continue;
    Status answered = Answer(message.arg.pagefault.address);
    if (!answered.ok()) {
      failed_(answered.error());
      return;
    }
  }
}

Status LazyServer::Answer(uint64_t address) {
  Range range = {};
  {
    std::lock_guard lock(mutex_);
    auto found = std::find_if(ranges_.rbegin(), ranges_.rend(), [&](const Range& one) {
      return address >= one.start && address - one.start < one.size;
    });
    // Unregistered, or mapped over, since: who waited was woken by that.
    if (found == ranges_.rend()) return OkStatus();
    range = *found;
  }
  uint64_t offset = range.offset + (address - range.start) / kPage * kPage;
  CUBE_TRY(image_->Load(offset));
  // All of the chunk that this range has.
  uint64_t first = std::max(offset / kChunkSize * kChunkSize, range.offset);
  uint64_t end = std::min((offset / kChunkSize + 1) * kChunkSize, range.offset + range.size);
  uffdio_range wake = {range.start + (first - range.offset), end - first};
  if (ioctl(faults_.get(), UFFDIO_WAKE, &wake) < 0) return ErrnoError("UFFDIO_WAKE");
  return OkStatus();
}

}  // namespace cube::snapshot
