// Snapshots that are not as they were written: bits flipped in every file, cut off, of another
// version, without what they build on. Each is refused in one line that names the file, or has lost
// nothing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>

#include "base/byte_io.h"
#include "devices/blk/testing/scratch.h"
#include "snapshot/machine_sections.h"
#include "snapshot/page_store.h"
#include "snapshot/state_file.h"
#include "snapshot/test_snapshot.h"

namespace cube::snapshot {
namespace {

namespace fs = std::filesystem;

using devices::blk::Disk;
using devices::blk::OverlayFile;
using devices::blk::testing::Pattern;
using devices::blk::testing::Scratch;

constexpr uint64_t kDiskSize = 1 << 20;
constexpr uint64_t kPage = 4096;
using Bytes = std::vector<uint8_t>;

Bytes DiskOf(const Snapshot& snapshot) {
  Disk disk = Disk::Over(snapshot.disks()[0]).value();
  std::vector<Disk::Extent> extents;
  disk.Map(0, disk.size(), &extents);
  Bytes bytes(disk.size());
  uint64_t at = 0;
  for (const Disk::Extent& extent : extents) {
    auto out = std::span(bytes).subspan(at, extent.size);
    EXPECT_TRUE(ReadExactAt(extent.fd, out, extent.file_offset, "disk").ok());
    at += extent.size;
  }
  return bytes;
}

// A base with a disk, a diff of it, a diff of that, and the last one in a page store.
class DamageTest : public ::testing::Test {
 protected:
  // What a snapshot holds, all of it.
  struct Content {
    std::string manifest;
    Bytes state, memory, disk;
    bool operator==(const Content&) const = default;
  };
  static Content ContentOf(const Snapshot& snapshot, bool with_memory) {
    return {snapshot.manifest().ToJson(), EncodeState(EncodeMachine(snapshot.state())),
            with_memory ? ImageOf(snapshot) : Bytes(), DiskOf(snapshot)};
  }

  void SetUp() override {
    Disk booted =
        Disk::Over(Disk::Open({.base = image_, .read_only = true}).value().stack(), Overlay())
            .value();
    vmm::GuestMemory memory = TestMemory();
    Fill(memory, 3, 2);
    Fill(memory, 4000, 1);
    WriteBlock(&booted, 7);
    Take("base", memory, &booted, nullptr);
    std::string parent = "base";
    for (const char* name : {"diff", "last"}) {
      Snapshot below = Snapshot::Open(Path(parent)).value();
      Disk disk = Disk::Over(below.disks()[0], Overlay()).value();
      vmm::GuestMemory clone = below.MapMemory().value();
      Fill(clone, parent == "base" ? 4 : 50, 3);
      WriteBlock(&disk, parent == "base" ? 7 : 9);
      Take(name, clone, &disk, &below);
      parent = name;
    }
    PageStore store = PageStore::Open(Path("store")).value();
    auto added = store.Add(Snapshot::Open(Path("last")).value());
    ASSERT_TRUE(added.ok()) << added.error().message();
    cold_ = fs::relative(added->path, Path(""));
    for (const auto& entry : fs::directory_iterator(Path("store/packs"))) {
      pack_ = fs::relative(entry.path(), Path(""));
    }
  }

  std::string Path(const std::string& name) const { return scratch_.Path(name); }
  OverlayFile Overlay() const {
    return OverlayFile::CreateTemporary(scratch_.Path(""), kDiskSize).value();
  }
  void Fill(const vmm::GuestMemory& memory, uint64_t page, uint64_t count) {
    std::span<uint8_t> bytes = memory.regions()[0].host.subspan(page * kPage, count * kPage);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_() | 1);
  }
  void WriteBlock(Disk* disk, uint64_t block) {
    Bytes bytes = Pattern(OverlayFile::kDefaultBlockSize, random_());
    ASSERT_EQ(pwrite(disk->write_fd(), bytes.data(), bytes.size(),
                     static_cast<off_t>(disk->WriteOffset(block * bytes.size()))),
              static_cast<ssize_t>(bytes.size()));
    disk->overlay()->SetPresent(block, 1);
  }
  void Take(const std::string& name, const vmm::GuestMemory& memory, Disk* disk,
            const Snapshot* parent) {
    Status taken = WriteTestSnapshot(Path(name), memory, disk, image_, parent);
    ASSERT_TRUE(taken.ok()) << taken.error().message();
  }
  // Why the snapshot is refused; empty if it is not.
  std::string Refused(const std::string& name) const {
    auto opened = Snapshot::Open(Path(name));
    if (opened.ok()) return "";
    const std::string& reason = opened.error().message();
    EXPECT_EQ(std::count(reason.begin(), reason.end(), '\n'), 0) << reason;
    EXPECT_LT(reason.size(), 700u) << reason;
    return reason;
  }
  Bytes Read(const std::string& file) const { return scratch_.Read(file); }
  void Write(const std::string& file, const Bytes& bytes) const { scratch_.Write(file, bytes); }
  static void FlipBit(int fd, uint64_t bit) {
    uint8_t byte;
    ASSERT_EQ(pread(fd, &byte, 1, static_cast<off_t>(bit / 8)), 1);
    byte ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_EQ(pwrite(fd, &byte, 1, static_cast<off_t>(bit / 8)), 1);
  }
  // The manifest changed by somebody who knows of its checksum.
  void EditManifest(const std::string& name, const std::function<void(Manifest*)>& edit) const {
    Manifest manifest = Manifest::Load(Path(name)).value();
    edit(&manifest);
    std::string text = manifest.ToJson();
    Write(name + "/manifest.json", Bytes(text.begin(), text.end()));
  }

  Scratch scratch_;
  std::mt19937 random_{1};
  std::string image_ = scratch_.Write("image", Pattern(kDiskSize, 1));
  std::string cold_, pack_;  // of "last" in the store
};

// Places in a file of `size` bytes: all of a small one; of a large one its beginning, its end, and
// some between.
std::vector<uint64_t> Places(const Bytes& file, std::mt19937* random) {
  constexpr uint64_t kSmall = 3000, kEdge = 300, kBetween = 200;
  std::vector<uint64_t> places;
  if (file.size() <= kSmall) {
    for (uint64_t at = 0; at < file.size(); ++at) places.push_back(at);
    return places;
  }
  for (uint64_t at = 0; at < kEdge; ++at) {
    places.push_back(at);
    places.push_back(file.size() - 1 - at);
  }
  for (uint64_t i = 0; i < kBetween; ++i) places.push_back((*random)() % file.size());
  // Where something is stored, and not a hole or padding.
  std::vector<uint64_t> data;
  for (uint64_t at = 0; at < file.size(); ++at) {
    if (file[at] != 0) data.push_back(at);
  }
  std::sample(data.begin(), data.end(), std::back_inserter(places), kBetween, *random);
  return places;
}

TEST_F(DamageTest, AFlippedBitIsFoundOrMeansNothing) {
  struct File {
    std::string path;
    std::string opened;  // the snapshot that has it
    bool padded;         // some of its bits mean nothing
  };
  const File files[] = {
      {"base/manifest.json", "base", true},  // the newline at its end
      {"base/state", "base", false},
      {"base/memory", "base", false},
      {"base/disk-vda", "base", true},
      {"base/disk-vda", "last", true},  // of an ancestor
      {"diff/manifest.json", "last", true},
      {"diff/state", "last", false},
      {"diff/memory", "last", false},
      {"last/memory", "last", false},
      {"last/disk-vda", "last", true},
      {cold_ + "/manifest.json", cold_, true},
      {cold_ + "/state", cold_, false},
      {cold_ + "/memory.cold", cold_, false},
      {cold_ + "/disk-vda", cold_, true},
      {pack_, cold_, true},  // lz4 has more than one way to say a thing
  };
  for (const File& file : files) {
    SCOPED_TRACE(file.path + ", opening " + file.opened);
    // To compare memory takes its time, and most of a layer's bits mean nothing.
    const bool with_memory = !file.path.ends_with("disk-vda");
    const Content whole = ContentOf(Snapshot::Open(Path(file.opened)).value(), with_memory);
    UniqueFd fd = OpenFile(Path(file.path), O_RDWR).value();
    int unnoticed = 0;
    for (uint64_t place : Places(Read(file.path), &random_)) {
      const uint64_t bit = 8 * place + random_() % 8;
      FlipBit(fd.get(), bit);
      auto opened = Snapshot::Open(Path(file.opened));
      if (opened.ok()) {
        ++unnoticed;
        EXPECT_TRUE(ContentOf(*opened, with_memory) == whole) << "bit " << bit;
      } else {
        const std::string& reason = opened.error().message();
        // A disk's image or a chunk may be what is then missing, but the snapshot is always named.
        EXPECT_NE(reason.find(scratch_.Path("")), std::string::npos) << reason;
        EXPECT_EQ(std::count(reason.begin(), reason.end(), '\n'), 0) << reason;
      }
      FlipBit(fd.get(), bit);
    }
    EXPECT_TRUE(file.padded || unnoticed == 0) << unnoticed;
    EXPECT_EQ(Refused(file.opened), "");
  }
}

TEST_F(DamageTest, EverySectionOfTheStateIsNamed) {
  std::vector<Section> sections = EncodeMachine(Snapshot::Open(Path("base")).value().state());
  const char* names[] = {"vm 0", "vcpu 0", "serial 0", "device 0", "device 1", "device 2"};
  ASSERT_EQ(sections.size(), std::size(names));
  const Bytes whole = Read("base/state");
  uint64_t begin = EncodeState({}).size();
  for (size_t i = 0; i < sections.size(); ++i) {
    SCOPED_TRACE(names[i]);
    uint64_t size = EncodeState({sections[i]}).size() - EncodeState({}).size();
    // Its content, or, of one without, its checksum.
    uint64_t at = begin + (sections[i].bytes.empty() ? 8 : size - 1);
    Bytes damaged = whole;
    damaged[at] ^= 16;
    Write("base/state", damaged);
    EXPECT_EQ(Refused("base"), Path("base/state") + ": section " + names[i] +
                                   " of state does not match its checksum");
    begin += size;
  }
  EXPECT_EQ(begin, whole.size());
  Write("base/state", whole);
  EXPECT_EQ(Refused("base"), "");
}

// A memory that was read through once is known by its file, size and times.
TEST_F(DamageTest, AStampIsOfOneFileAsItWas) {
  const std::string memory = Path("base/memory"), stamp = memory + ".verified";
  ASSERT_TRUE(fs::exists(stamp));
  // Another file of that name, with a bit flipped, the same size and the same time of change.
  const Bytes before = Read("base/memory");
  Bytes damaged = before;
  damaged[3 * kPage + 5] ^= 1;
  const fs::file_time_type time = fs::last_write_time(memory);
  Write("base/memory", damaged);
  fs::last_write_time(memory, time);
  EXPECT_NE(Refused("base").find("/base/memory does not match its checksum"), std::string::npos);
  EXPECT_NE(Refused("last").find("/base/memory does not match its checksum"), std::string::npos);
  // A stamp that is none, or leads elsewhere, is not believed, and nothing is written through it.
  Write("base/memory", before);
  fs::remove(stamp);
  fs::create_symlink("../victim", stamp);
  Write("victim", {'x'});
  EXPECT_EQ(Refused("base"), "");
  EXPECT_EQ(Read("victim"), Bytes{'x'});
  fs::remove(stamp);
  ASSERT_EQ(mkfifo(stamp.c_str(), 0600), 0);
  EXPECT_EQ(Refused("base"), "");
}

TEST_F(DamageTest, SaysWhatIsWrongWithTheFiles) {
  struct Case {
    const char* file;
    std::function<void(Bytes*)> damage;
    const char* opened;
    const char* reason;
  };
  auto cut = [](size_t size) { return [size](Bytes* bytes) { bytes->resize(size); }; };
  auto shorter = [](Bytes* bytes) { bytes->pop_back(); };
  auto longer = [](Bytes* bytes) { bytes->push_back(0); };
  auto set = [](size_t at, uint8_t value) {
    return [at, value](Bytes* bytes) { bytes->at(at) = value; };
  };
  const std::string cold_manifest = cold_ + "/manifest.json", cold_index = cold_ + "/memory.cold";
  const Case cases[] = {
      {"base/manifest.json", cut(0), "base", "/base/manifest.json: not JSON"},
      {"base/manifest.json", cut(500), "base", "/base/manifest.json: not JSON"},
      {"base/manifest.json", longer, "base", "/base/manifest.json: not JSON"},
      {"base/manifest.json", set(11, '7'), "base",
       "/base/manifest.json: snapshot format version 7, this is version 1"},
      {"base/state", cut(0), "base", "/base/state: state ends 16 bytes too early"},
      {"base/state", shorter, "base", "/base/state: "},
      {"base/state", longer, "base", "/base/state: state has 1 bytes too many"},
      {"base/state", set(0, 'X'), "base", "/base/state: state is not a state file"},
      {"base/state", set(8, 9), "base", "/base/state: state is of version 9, this is version 1"},
      {"base/memory", cut(0), "base", "/base/memory has 0 bytes, "},
      {"base/memory", shorter, "base", "/base/memory has "},
      {"base/memory", longer, "base", "/base/memory has "},
      {"diff/memory", cut(0), "diff", "/diff/memory has 0 bytes, "},
      {"diff/memory", cut(4000), "last", "/diff/memory has 4000 bytes, "},
      {"diff/memory", longer, "diff", "/diff/memory has "},
      {"diff/memory", set(0, 'X'), "diff", "/diff/memory: memory is not that of a diff"},
      {"diff/memory", set(8, 3), "diff", "/diff/memory: memory is of version 3, this is version 1"},
      {"diff/memory", set(15, 1), "diff", "/diff/memory: memory has 16777217 runs, at most"},
      {"diff/memory", set(40, 1), "diff", "/diff/memory: memory's index does not match"},
      {"diff/memory", set(5000, 0), "last", "/diff/memory does not match its checksum"},
      {"base/disk-vda", cut(100), "base", "/base/disk-vda"},
      {"base/disk-vda", shorter, "base", "/base/disk-vda has "},
      {"base/disk-vda", longer, "base", "/base/disk-vda has "},
      {"base/disk-vda", set(0, 'X'), "base", "/base/disk-vda is not an overlay"},
      {"base/disk-vda", set(8, 5), "last", "/base/disk-vda: overlay of version 5, this is version"},
      {cold_index.c_str(), cut(0), cold_.c_str(), "/memory.cold: cut off after 0 bytes"},
      {cold_index.c_str(), shorter, cold_.c_str(), " entries announced, "},
      {cold_index.c_str(), set(0, 'X'), cold_.c_str(), "/memory.cold: not a cold memory's index"},
      {cold_index.c_str(), set(8, 2), cold_.c_str(), "/memory.cold: of version 2 with chunks"},
      {pack_.c_str(), cut(10), cold_.c_str(), " is cut off after 10 bytes"},
      {pack_.c_str(), shorter, cold_.c_str(), "does not end as a pack does: it is cut off"},
      {pack_.c_str(), set(8, 2), cold_.c_str(), " is of version 2 with chunks of "},
      {pack_.c_str(), set(1000, 0), cold_.c_str(), " is damaged: it "},
      {cold_manifest.c_str(), cut(0), cold_.c_str(), "/manifest.json: not JSON"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(std::string(one.file) + ", " + one.reason);
    const Bytes whole = Read(one.file);
    Bytes damaged = whole;
    one.damage(&damaged);
    ASSERT_NE(damaged, whole);
    Write(one.file, damaged);
    EXPECT_NE(Refused(one.opened).find(one.reason), std::string::npos) << Refused(one.opened);
    Write(one.file, whole);
    EXPECT_EQ(Refused(one.opened), "");
  }
}

TEST_F(DamageTest, AFileThatIsNoFileHoldsNobodyUp) {
  for (const std::string& file :
       {std::string("base/manifest.json"), std::string("base/state"), std::string("base/memory"),
        std::string("base/disk-vda"), cold_ + "/memory.cold", pack_}) {
    SCOPED_TRACE(file);
    const std::string opened = file.starts_with("base") ? "base" : cold_;
    fs::rename(Path(file), Path("away"));
    EXPECT_NE(Refused(opened), "");
    ASSERT_EQ(mkfifo(Path(file).c_str(), 0600), 0);
    EXPECT_NE(Refused(opened).find("is not a regular file"), std::string::npos) << Refused(opened);
    fs::remove(Path(file));
    fs::create_symlink("/dev/zero", Path(file));
    EXPECT_NE(Refused(opened).find("is not a regular file"), std::string::npos) << Refused(opened);
    fs::remove(Path(file));
    fs::create_directories(Path(file));
    EXPECT_NE(Refused(opened).find("is not a regular file"), std::string::npos) << Refused(opened);
    fs::remove(Path(file));
    fs::rename(Path("away"), Path(file));
    EXPECT_EQ(Refused(opened), "");
  }
}

TEST_F(DamageTest, SaysWhatIsWrongWithTheChain) {
  struct Case {
    const char* what;
    std::function<void()> damage;
    const char* opened;
    std::string reason;
  };
  auto id = [&](const char* name) { return Manifest::Load(Path(name)).value().id; };
  auto build_on = [&](const char* name, const char* parent) {
    EditManifest(name, [&](Manifest* manifest) {
      manifest->parent = id(parent);
      manifest->parent_path = Path(parent);
    });
  };
  const Case cases[] = {
      {"a parent that is gone", [&] { fs::rename(Path("diff"), Path("gone")); }, "last",
       "the parent of " + Path("last") + ": cannot open " + Path("diff/manifest.json") +
           ": No such"},
      {"an ancestor that is gone", [&] { fs::rename(Path("base"), Path("gone")); }, "last",
       "an ancestor of " + Path("last") + ": cannot open " + Path("base/manifest.json") +
           ": No such"},
      {"a parent that is damaged", [&] { EditManifest("base", [](Manifest* m) { m->cpus = 0; }); },
       "diff", "the parent of " + Path("diff") + ": " + Path("base/manifest.json") + ": 0 vCPUs"},
      {"another parent in its place",
       [&] { EditManifest("base", [](Manifest* m) { m->id = std::string(32, 'a'); }); }, "diff",
       Path("diff") + " builds on snapshot " + id("base") + ", " + Path("base") + " is " +
           std::string(32, 'a')},
      {"a machine of another size",
       [&] { EditManifest("diff", [](Manifest* m) { m->memory_bytes *= 2; }); }, "diff",
       Path("diff") + " has 67108864 bytes of memory, its parent 33554432"},
      {"another image under the disk",
       [&] {
         EditManifest("diff", [&](Manifest* m) { m->hardware.disks[0].files[0].path += "2"; });
       },
       "diff", "disk vda is not made of the same files as that of its parent"},
      {"a disk fewer than its parent",
       [&] {
         EditManifest("diff", [](Manifest* m) {
           m->hardware.disks.clear();
           m->devices = m->hardware.DeviceNames();
         });
       },
       "diff", Path("diff") + " has 0 disks, its parent 1"},
      {"itself", [&] { build_on("diff", "diff"); }, "diff",
       "the parent of " + Path("diff") + ": " + Path("diff") + " builds on itself, in a circle"},
      {"a circle of two", [&] { build_on("base", "diff"); }, "diff",
       "an ancestor of " + Path("diff") + ": " + Path("diff") + " builds on itself, in a circle"},
      {"a circle of three", [&] { build_on("base", "last"); }, "last",
       "an ancestor of " + Path("last") + ": " + Path("last") + " builds on itself, in a circle"},
      {"a circle that it is not in", [&] { build_on("base", "diff"); }, "last",
       "an ancestor of " + Path("last") + ": " + Path("diff") + " builds on itself, in a circle"},
      {"a diff in a page store", [&] { EditManifest("last", [](Manifest* m) { m->cold = true; }); },
       "last", Path("last/manifest.json") + ": a diff in a page store"},
      {"more processors than its state has",
       [&] { EditManifest("base", [](Manifest* m) { m->cpus = 2; }); }, "base",
       Path("base/state") + ": 6 sections, the manifest's machine has 7"},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    fs::copy(Path("base"), Path("kept-base"));
    fs::copy(Path("diff"), Path("kept-diff"));
    fs::copy(Path("last"), Path("kept-last"));
    one.damage();
    EXPECT_NE(Refused(one.opened).find(one.reason), std::string::npos)
        << Refused(one.opened) << "\n"
        << one.reason;
    fs::remove_all(Path("gone"));
    for (const char* name : {"base", "diff", "last"}) {
      fs::remove_all(Path(name));
      fs::rename(Path(std::string("kept-") + name), Path(name));
    }
    EXPECT_EQ(Refused("last"), "");
  }
}

TEST_F(DamageTest, AChainThatIsTooLongIsRefused) {
  // Of empty diffs, which are names for what they build on.
  std::string below = "base";
  size_t longest = 0;
  for (size_t i = 0; i < Snapshot::kMaxDepth + 1; ++i) {
    const std::string name = "chain-" + std::to_string(i);
    auto parent = Snapshot::Open(Path(below));
    ASSERT_TRUE(parent.ok()) << parent.error().message();
    longest = i;
    Disk disk = Disk::Over(parent->disks()[0], Overlay()).value();
    Take(name, parent->MapMemory().value(), &disk, &*parent);
    below = name;
  }
  EXPECT_EQ(longest, Snapshot::kMaxDepth);
  EXPECT_NE(Refused(below).find("more than 64 snapshots build on one another"), std::string::npos)
      << Refused(below);
}

}  // namespace
}  // namespace cube::snapshot
