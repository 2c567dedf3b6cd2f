#ifndef CUBE_SNAPSHOT_LAZY_SERVER_H_
#define CUBE_SNAPSHOT_LAZY_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/cold_image.h"

namespace cube::snapshot {

// Loads the chunks of a cold image when its private mappings are first touched, by userfaultfd
// (Documentation/admin-guide/mm/userfaultfd.rst): whoever touches one, a vCPU in the guest, KVM, or
// any thread of this process, sleeps until it is there. The faults are answered by a thread of its
// own, which touches no guest memory.
//
// The image is a file in memory: what is loaded is the file's, so that the pages which a machine
// has written to are told from the others as with any private mapping.
class LazyServer {
 public:
  // `failed` is called once, on the thread, if a chunk cannot be loaded: who waits for it waits for
  // ever, so the process must end.
  using Failed = std::function<void(const Error&)>;
  static Result<std::unique_ptr<LazyServer>> Start(std::shared_ptr<ColdImage> image, Failed failed);
  LazyServer(const LazyServer&) = delete;
  LazyServer& operator=(const LazyServer&) = delete;
  // Nothing that is registered may be in use any more, unless LoadAll() was called.
  ~LazyServer();

  // `mapping` is a private mapping of the image from `offset` on, multiples of the page; nobody has
  // touched it. Another one at the same place ends this one. Any thread.
  Status Register(std::span<uint8_t> mapping, uint64_t offset);
  // Loads the rest, and ends the thread: what is mapped then needs nobody. One thread at a time.
  Status LoadAll();

 private:
  struct Range {
    uint64_t start;  // host address
    uint64_t size;
    uint64_t offset;
  };
  LazyServer(std::shared_ptr<ColdImage> image, Failed failed, UniqueFd faults, UniqueFd stop)
      : image_(std::move(image)),
        failed_(std::move(failed)),
        faults_(std::move(faults)),
        stop_(std::move(stop)) {}
  void Serve();
  Status Answer(uint64_t address);
  void Join();

  std::shared_ptr<ColdImage> image_;
  Failed failed_;
  UniqueFd faults_;
  UniqueFd stop_;
  std::mutex mutex_;
  std::vector<Range> ranges_;  // the newest last
  std::thread thread_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_LAZY_SERVER_H_
