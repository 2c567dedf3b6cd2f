// Writers that die: killed before one of their system calls, of which $CRASH_POINTS are chosen by
// chance for each kind of work, and with a disk that is full. What was published stays whole, what
// was being published is there as a whole or not at all, and the next one clears up.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "devices/blk/testing/scratch.h"
#include "snapshot/memory_file.h"
#include "snapshot/page_hasher.h"
#include "snapshot/page_store.h"
#include "snapshot/publish.h"
#include "snapshot/snapshot_writer.h"
#include "snapshot/test_snapshot.h"

namespace cube::snapshot {
namespace {

namespace fs = std::filesystem;

using devices::blk::Disk;
using devices::blk::OverlayFile;
using devices::blk::testing::Pattern;
using devices::blk::testing::Scratch;

using Work = std::function<Status()>;

// Lets `work` be done by a child that is killed when it makes its system call number `at`, from 1
// on. How many it has made, if it came to its end before.
std::optional<int> KilledAt(int at, const Work& work) {
  pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) < 0) _exit(2);
    raise(SIGSTOP);
    _exit(work().ok() ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL),
            0);
  int calls = 0;
  bool entered = false;
  for (long signal = 0;;) {
    EXPECT_EQ(ptrace(PTRACE_SYSCALL, child, nullptr, signal), 0);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) break;
    bool is_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
    signal = is_call ? 0 : WSTOPSIG(status);
    if (!is_call) continue;
    entered = !entered;
    if (!entered || ++calls < at) continue;
    kill(child, SIGKILL);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return std::nullopt;
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  return calls;
}

constexpr uint64_t kPage = 4096;
constexpr int kToItsEnd = 1 << 30;

// Of the pages of a memory image that are not zeros, and where they are.
std::string Digest(const vmm::GuestMemory& memory) {
  PageHasher hasher;
  uint64_t at = 0;
  for (const vmm::MemoryRegion& region : memory.regions()) {
    for (uint64_t page = 0; page < region.host.size(); page += kPage, at += kPage) {
      std::span<const uint8_t> bytes = region.host.subspan(page, kPage);
      if (!IsZero(bytes)) hasher.AddPages(bytes, at);
    }
  }
  return hasher.Hex();
}
std::string Digest(const Snapshot& snapshot) {
  PageHasher hasher;
  uint8_t bytes[kPage];
  const std::vector<PageRun> runs = snapshot.DataRuns().value();
  for (const PageRun& run : runs) {
    for (uint64_t at = run.start; at < run.start + run.size; at += kPage) {
      EXPECT_TRUE(snapshot.Read(at, bytes).ok());
      if (!IsZero(bytes)) hasher.AddPages(bytes, at);
    }
  }
  return hasher.Hex();
}

class CrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    points_ = atoi(getenv("CRASH_POINTS"));
    ASSERT_GT(points_, 0);
    fs::create_directories(Path("out"));
    memory_ = std::make_unique<vmm::GuestMemory>(TestMemory());
    Fill(*memory_, 0, 300'000);
    Fill(*memory_, 20 << 20, 5000);
    ASSERT_TRUE(WriteTestBase(Path("out/base"), *memory_).ok());
    Expect("base", *memory_);
    Snapshot base = Snapshot::Open(Path("out/base")).value();
    vmm::GuestMemory clone = base.MapMemory().value();
    Fill(clone, 1 << 20, 200'000);
    ASSERT_TRUE(WriteTestDiff(Path("out/one"), clone, base).ok());
    Expect("one", clone);
  }

  std::string Path(const std::string& name) const { return scratch_.Path(name); }
  void Fill(const vmm::GuestMemory& memory, uint64_t start, uint64_t size) {
    std::vector<uint8_t> bytes = Pattern(size, random_());
    memcpy(memory.regions()[0].host.data() + start, bytes.data(), size);
  }
  // The snapshot of that name in "out" is to be `memory` from here on.
  void Expect(const std::string& name, const vmm::GuestMemory& memory) {
    expected_[name] = Digest(memory);
  }
  // All that is in "out" is whole and as expected; the names there.
  std::set<std::string> CheckPublished() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(Path("out"))) {
      const std::string name = entry.path().filename();
      if (name.starts_with(kUnpublishedPrefix)) continue;
      names.insert(name);
      auto opened = Snapshot::Open(entry.path());
      EXPECT_TRUE(opened.ok()) << opened.error().message();
      if (!opened.ok()) continue;
      auto expected = expected_.find(name);
      EXPECT_TRUE(expected != expected_.end()) << name;
      EXPECT_EQ(Digest(*opened), expected->second) << name;
    }
    EXPECT_TRUE(names.contains("base") && names.contains("one"));
    return names;
  }
  static size_t Entries(const std::string& folder) {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  }
  // Has `work` killed at some of its calls: at its first, at its last, and at others by chance.
  // `before` each, and `after` each, which is told whether it was killed.
  void AtManyPoints(const std::function<void()>& before, const Work& work,
                    const std::function<void(bool killed)>& after) {
    before();
    const int calls = KilledAt(kToItsEnd, work).value();
    after(false);
    std::uniform_int_distribution<int> any(1, calls);
    int killed = 0;
    for (int i = 0; i < points_; ++i) {
      const int at = i == 0 ? 1 : i == 1 ? calls : any(random_);
      SCOPED_TRACE(Format("call %d of %d", at, calls));
      before();
      bool was_killed = !KilledAt(at, work).has_value();
      killed += was_killed ? 1 : 0;
      after(was_killed);
      if (HasFailure()) return;
    }
    // Not every time has it as many calls.
    EXPECT_GE(killed, points_ / 2);
  }

  Scratch scratch_;
  int points_ = 0;
  std::mt19937 random_{1};
  std::unique_ptr<vmm::GuestMemory> memory_;
  std::map<std::string, std::string> expected_;  // digests of memories
};

TEST_F(CrashTest, ADiffInAChain) {
  Snapshot parent = Snapshot::Open(Path("out/one")).value();
  vmm::GuestMemory clone = parent.MapMemory().value();
  Fill(clone, 2 << 20, 3'000'000);
  Expect("two", clone);
  AtManyPoints([&] { fs::remove_all(Path("out/two")); },
               [&] { return WriteTestDiff(Path("out/two"), clone, parent); },
               [&](bool killed) {
                 std::set<std::string> names = CheckPublished();
                 EXPECT_TRUE(killed || names.contains("two"));
               });
  // Of all who died nothing is left once the next has come.
  fs::remove_all(Path("out/two"));
  ASSERT_TRUE(WriteTestDiff(Path("out/two"), clone, parent).ok());
  EXPECT_EQ(Entries(Path("out")), 3u);
}

TEST_F(CrashTest, ADiffOfADisk) {
  const std::string image = scratch_.Write("image", Pattern(1 << 20, 1));
  auto overlay = [&] { return OverlayFile::CreateTemporary(Path(""), 1 << 20).value(); };
  Disk booted =
      Disk::Over(Disk::Open({.base = image, .read_only = true}).value().stack(), overlay()).value();
  ASSERT_TRUE(WriteTestSnapshot(Path("out/disk"), *memory_, &booted, image, nullptr).ok());
  Expect("disk", *memory_);
  Snapshot parent = Snapshot::Open(Path("out/disk")).value();
  vmm::GuestMemory clone = parent.MapMemory().value();
  Fill(clone, 2 << 20, 100'000);
  Expect("two", clone);
  AtManyPoints([&] { fs::remove_all(Path("out/two")); },
               [&] {
                 Disk disk = Disk::Over(parent.disks()[0], overlay()).value();
                 std::vector<uint8_t> block = Pattern(4096, 5);
                 if (pwrite(disk.write_fd(), block.data(), block.size(),
                            static_cast<off_t>(disk.WriteOffset(3 * 4096))) != 4096) {
                   return Status(ErrnoError("pwrite"));
                 }
                 disk.overlay()->SetPresent(3, 1);
                 return WriteTestSnapshot(Path("out/two"), clone, &disk, image, &parent);
               },
               [&](bool killed) {
                 std::set<std::string> names = CheckPublished();
                 EXPECT_TRUE(killed || names.contains("two"));
                 if (!names.contains("two")) return;
                 Snapshot two = Snapshot::Open(Path("out/two")).value();
                 EXPECT_EQ(two.manifest().hardware.disks[0].layer_blocks, 1u);
               });
  // Disks without a name are gone with who had them.
  EXPECT_EQ(Entries(Path("")), 2u);
}

TEST_F(CrashTest, AFlattenedChain) {
  Snapshot one = Snapshot::Open(Path("out/one")).value();
  expected_["flat"] = expected_["one"];
  AtManyPoints([&] { fs::remove_all(Path("out/flat")); },
               [&]() -> Status {
                 CUBE_ASSIGN(SnapshotWriter writer,
                             SnapshotWriter::Create(Path("out/flat"), TestManifest()));
                 CUBE_TRY(writer.WriteFlat(one));
                 CUBE_TRY(writer.WriteDisks(one.disks(), nullptr));
                 CUBE_ASSIGN(std::string id, writer.Publish(true));
                 return OkStatus();
               },
               [&](bool killed) {
                 EXPECT_TRUE(killed || CheckPublished().contains("flat"));
                 CheckPublished();
               });
}

TEST_F(CrashTest, ASnapshotThatIsDeleted) {
  AtManyPoints(
      [&] {
        fs::remove_all(Path("out/gone"));
        ASSERT_TRUE(WriteTestBase(Path("out/gone"), *memory_).ok());
        Expect("gone", *memory_);
      },
      [&] { return RemoveSnapshot(Path("out/gone")); },
      [&](bool killed) { EXPECT_TRUE(killed || !CheckPublished().contains("gone")); });
  fs::remove_all(Path("out/gone"));
  RemoveUnpublished(Path("out"));
  EXPECT_EQ(Entries(Path("out")), 2u);
}

// The page store: each round puts a snapshot in that shares half of its chunks with the one before,
// takes an old one out, and collects what nobody names.
class StoreCrashTest : public CrashTest {
 protected:
  void SetUp() override {
    CrashTest::SetUp();
    for (int i = 0; i < 3; ++i) AddOne();
  }
  PageStore Store() const { return PageStore::Open(Path("store")).value(); }
  // Another snapshot, not yet in the store: its folder.
  std::string Make() {
    Fill(*memory_, (random_() % 8) * 131072, 131072);
    fs::remove_all(Path("hot"));
    EXPECT_TRUE(WriteTestBase(Path("hot"), *memory_).ok());
    Snapshot hot = Snapshot::Open(Path("hot")).value();
    making_ = hot.manifest().id;
    stored_[making_] = Digest(*memory_);
    return Path("hot");
  }
  void AddOne() {
    auto added = Store().Add(Snapshot::Open(Make()).value());
    ASSERT_TRUE(added.ok()) << added.error().message();
    order_.push_back(making_);
  }
  // Takes the oldest one out.
  void TakeOutOldest() {
    const std::string id = order_.front();
    ASSERT_TRUE(Store().Remove(id).ok());
    std::erase(order_, id);
    stored_.erase(id);
  }
  // All that is in the store is whole and as it was put in, and all that is to be there is; the
  // ids.
  std::set<std::string> CheckStore() const {
    auto problems = Store().Verify();
    EXPECT_TRUE(problems.ok()) << problems.error().message();
    EXPECT_TRUE(problems->empty()) << problems->front();
    std::set<std::string> ids;
    for (const auto& entry : fs::directory_iterator(Path("store/snapshots"))) {
      const std::string id = entry.path().filename();
      if (id.starts_with(kUnpublishedPrefix)) continue;
      ids.insert(id);
      auto opened = Snapshot::Open(entry.path());
      EXPECT_TRUE(opened.ok()) << opened.error().message();
      EXPECT_TRUE(opened.ok() && Digest(*opened) == stored_.at(id)) << id;
    }
    for (const std::string& id : order_) EXPECT_TRUE(ids.contains(id)) << id;
    return ids;
  }
  // Nothing is left of who died, and nothing that is not needed.
  void CheckTidy() {
    auto collected = Store().Gc();
    ASSERT_TRUE(collected.ok()) << collected.error().message();
    EXPECT_EQ(CheckStore(), std::set<std::string>(order_.begin(), order_.end()));
    EXPECT_EQ(Store().Count().value().unused_chunks, 0u);
    EXPECT_EQ(Entries(Path("store/snapshots")), order_.size());
    for (const auto& entry : fs::directory_iterator(Path("store/packs"))) {
      EXPECT_EQ(entry.path().extension(), ".pack");
    }
  }

  std::vector<std::string> order_;             // ids that are to be there, the oldest first
  std::string making_;                         // id of the last one made
  std::map<std::string, std::string> stored_;  // digests of memories
};

TEST_F(StoreCrashTest, Add) {
  AtManyPoints([&] { Make(); },
               [&]() -> Status {
                 CUBE_ASSIGN(Snapshot hot, Snapshot::Open(Path("hot")));
                 CUBE_ASSIGN(PageStore::Added added, Store().Add(hot));
                 return OkStatus();
               },
               [&](bool killed) {
                 bool is_there = CheckStore().contains(making_);
                 EXPECT_TRUE(killed || is_there);
                 if (!is_there) return;
                 // So that it does not grow.
                 ASSERT_TRUE(Store().Remove(making_).ok());
                 stored_.erase(making_);
               });
  CheckTidy();
}

TEST_F(StoreCrashTest, Remove) {
  AtManyPoints([&] { AddOne(); }, [&] { return Store().Remove(making_); },
               [&](bool killed) {
                 const std::string id = making_;
                 std::erase(order_, id);
                 bool is_there = CheckStore().contains(id);
                 EXPECT_TRUE(killed || !is_there);
                 EXPECT_TRUE(!is_there || Store().Remove(id).ok());
               });
  CheckTidy();
}

TEST_F(StoreCrashTest, Gc) {
  AtManyPoints(
      [&] {
        AddOne();
        TakeOutOldest();
      },
      [&] {
        auto collected = Store().Gc();
        return collected.ok() ? OkStatus() : Status(collected.error());
      },
      [&](bool) { CheckStore(); });
  CheckTidy();
}

// A file system of its own, of so many bytes, which goes with this process.
class FullDiskTest : public StoreCrashTest {
 protected:
  static void SetUpTestSuite() {
    ASSERT_EQ(unshare(CLONE_NEWNS), 0) << strerror(errno);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0) << strerror(errno);
  }
  void SetUp() override {
    ASSERT_EQ(mount("full", Path("").c_str(), "tmpfs", 0, "size=64m"), 0) << strerror(errno);
    StoreCrashTest::SetUp();
  }
  void TearDown() override { EXPECT_EQ(umount2(Path("").c_str(), MNT_DETACH), 0); }
  // Leaves so many KiB free.
  void LeaveFree(uint64_t kibibytes) {
    fs::remove(Path("filler"));
    uint64_t free = fs::space(Path("")).available;
    std::string zeros(1 << 16, 'x');
    std::ofstream filler(Path("filler"), std::ios::binary);
    for (uint64_t left = free - std::min(free, kibibytes << 10); left > 0;) {
      uint64_t size = std::min<uint64_t>(left, zeros.size());
      filler.write(zeros.data(), static_cast<std::streamsize>(size));
      left -= size;
    }
  }
  // With ever more room, until it is done; each time before that it says in one line what is
  // missing, and nothing is lost. How often it failed.
  int WithEverMoreRoom(const Work& work, const std::function<void()>& check) {
    int failures = 0;
    for (uint64_t free : {0, 4, 8, 16, 40, 80, 120, 200, 400, 1000, 4000, 8000}) {
      SCOPED_TRACE(Format("%d KiB free", static_cast<int>(free)));
      LeaveFree(free);
      Status done = work();
      check();
      if (done.ok()) {
        fs::remove(Path("filler"));
        return failures;
      }
      ++failures;
      const std::string& reason = done.error().message();
      EXPECT_NE(reason.find("No space left on device"), std::string::npos) << reason;
      EXPECT_EQ(std::count(reason.begin(), reason.end(), '\n'), 0) << reason;
    }
    ADD_FAILURE() << "it is never done";
    return failures;
  }
};

TEST_F(FullDiskTest, Diff) {
  Snapshot parent = Snapshot::Open(Path("out/one")).value();
  vmm::GuestMemory clone = parent.MapMemory().value();
  Fill(clone, 2 << 20, 3'000'000);
  Expect("two", clone);
  int failures = WithEverMoreRoom([&] { return WriteTestDiff(Path("out/two"), clone, parent); },
                                  [&] { CheckPublished(); });
  EXPECT_GT(failures, 5);
  EXPECT_TRUE(CheckPublished().contains("two"));
  EXPECT_EQ(Entries(Path("out")), 3u);
}

TEST_F(FullDiskTest, Add) {
  Make();
  Snapshot hot = Snapshot::Open(Path("hot")).value();
  int failures = WithEverMoreRoom(
      [&]() -> Status {
        CUBE_ASSIGN(PageStore::Added added, Store().Add(hot));
        return OkStatus();
      },
      [&] { CheckStore(); });
  EXPECT_GT(failures, 2);
  EXPECT_TRUE(CheckStore().contains(making_));
  order_.push_back(making_);
  CheckTidy();
}

TEST_F(FullDiskTest, Gc) {
  TakeOutOldest();
  int failures = WithEverMoreRoom(
      [&] {
        auto collected = Store().Gc();
        return collected.ok() ? OkStatus() : Status(collected.error());
      },
      [&] { CheckStore(); });
  EXPECT_GT(failures, 2);
  CheckTidy();
}

// What nobody needs is deleted before anything is written, which then finds room.
TEST_F(FullDiskTest, GcMakesItsOwnRoom) {
  // Packs of their own: one of which nothing is needed, larger than what is to be written anew.
  vmm::GuestMemory other = TestMemory();
  Fill(other, 0, 6 << 20);
  ASSERT_TRUE(WriteTestBase(Path("other"), other).ok());
  PageStore::Added large = Store().Add(Snapshot::Open(Path("other")).value()).value();
  ASSERT_TRUE(Store().Remove(fs::path(large.path).filename()).ok());
  TakeOutOldest();
  LeaveFree(0);
  auto collected = Store().Gc();
  ASSERT_TRUE(collected.ok()) << collected.error().message();
  EXPECT_GT(collected->bytes_freed, 6u << 20);
  CheckTidy();
}

}  // namespace
}  // namespace cube::snapshot
