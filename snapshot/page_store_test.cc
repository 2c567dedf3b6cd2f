#include "snapshot/page_store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

// For the secret that xxh3 mixes into what it hashes.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "snapshot/test_snapshot.h"

namespace cube::snapshot {
namespace {

namespace fs = std::filesystem;

void FillRandom(std::span<uint8_t> bytes, unsigned seed) {
  std::mt19937_64 random(seed);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    uint64_t word = random();
    memcpy(bytes.data() + i, &word, sizeof word);
  }
}

class PageStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    work_ = ::testing::TempDir() + "/page-store-" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(work_);
    fs::create_directories(work_);
  }
  PageStore Store() { return PageStore::Open(work_ + "/store").value(); }
  // A snapshot of `memory` in a folder of its own.
  Snapshot Base(const std::string& name, const vmm::GuestMemory& memory) {
    Status written = WriteTestBase(work_ + "/" + name, memory);
    EXPECT_TRUE(written.ok()) << (written.ok() ? "" : written.error().message());
    auto opened = Snapshot::Open(work_ + "/" + name);
    EXPECT_TRUE(opened.ok()) << (opened.ok() ? "" : opened.error().message());
    return std::move(opened).value();
  }
  std::vector<std::string> Packs() {
    std::vector<std::string> packs;
    for (const auto& entry : fs::directory_iterator(work_ + "/store/packs")) {
      packs.push_back(entry.path().string());
    }
    std::sort(packs.begin(), packs.end());
    return packs;
  }
  std::string work_;
};

TEST_F(PageStoreTest, GivesBackWhatWasPutIn) {
  vmm::GuestMemory memory = TestMemory();
  std::span<uint8_t> ram = memory.regions()[0].host;
  FillRandom(ram.subspan(5 * 4096, 40000), 1);
  memset(ram.data() + (8 << 20), 'x', 1 << 20);
  FillRandom(memory.mailbox().subspan(4096, 100), 2);
  Snapshot hot = Base("hot", memory);
  PageStore store = Store();
  PageStore::Added added = store.Add(hot).value();
  EXPECT_TRUE(added.is_new);
  // 40,000 bytes that do not compress; a MiB of one letter, which is one chunk; and the mailbox.
  EXPECT_EQ(added.chunks, 2u + 32u + 1u);
  EXPECT_EQ(added.stored, 2u + 1u + 1u);
  EXPECT_LT(added.written, 45000u);
  fs::remove_all(work_ + "/hot");
  Snapshot cold = Snapshot::Open(added.path).value();
  EXPECT_EQ(cold.manifest().id, hot.manifest().id);
  EXPECT_TRUE(cold.manifest().cold);
  EXPECT_EQ(ImageOf(cold), ImageOf(memory));
  EXPECT_TRUE(store.Verify().value().empty());
  EXPECT_FALSE(store.Add(hot).value().is_new);
  EXPECT_FALSE(store.Add(cold).value().is_new);
  PageStore::Stats stats = store.Count().value();
  EXPECT_EQ(stats.snapshots, 1u);
  EXPECT_EQ(stats.packs, 1u);
  EXPECT_EQ(stats.chunks, 4u);
  EXPECT_EQ(stats.image_bytes, 35u * kChunkSize);
  EXPECT_EQ(stats.unused_chunks, 0u);
}

TEST_F(PageStoreTest, SnapshotsShareWhatTheyHaveInCommon) {
  vmm::GuestMemory memory = TestMemory();
  FillRandom(memory.regions()[0].host.first(4 << 20), 1);
  PageStore store = Store();
  EXPECT_EQ(store.Add(Base("a", memory)).value().stored, 128u);
  FillRandom(memory.regions()[0].host.first(4096), 2);
  PageStore::Added second = store.Add(Base("b", memory)).value();
  EXPECT_EQ(second.chunks, 128u);
  EXPECT_EQ(second.stored, 1u);
  // A diff of it is put in whole.
  Snapshot b = Snapshot::Open(work_ + "/b").value();
  vmm::GuestMemory clone = b.MapMemory().value();
  FillRandom(clone.regions()[0].host.subspan(20 << 20, 4096), 3);
  ASSERT_TRUE(WriteTestDiff(work_ + "/c", clone, b).ok());
  Snapshot diff = Snapshot::Open(work_ + "/c").value();
  PageStore::Added third = store.Add(diff).value();
  EXPECT_EQ(third.chunks, 129u);
  EXPECT_EQ(third.stored, 1u);
  fs::remove_all(work_ + "/a");
  fs::remove_all(work_ + "/b");
  fs::remove_all(work_ + "/c");
  EXPECT_EQ(ImageOf(Snapshot::Open(third.path).value()), ImageOf(clone));
}

// Two chunks with the same hash, as a guest can make them. Within a stretch of 16 stripes, xxh3
// adds the product of the halves of each word, mixed with a known secret, to one sum, and the word
// to another. A word that cancels one half of its secret has the product 0 whatever its other half,
// and what that adds to the other sum is taken back by the same word of another stripe.
void MakeColliding(std::span<uint8_t> a, std::span<uint8_t> b) {
  auto put = [](std::span<uint8_t> chunk, size_t stripe, uint32_t high) {
    uint64_t secret;
    memcpy(&secret, XXH3_kSecret + 8 * stripe, sizeof secret);
    uint64_t word = (secret & 0xffffffff) | uint64_t{high} << 32;
    memcpy(chunk.data() + 64 * stripe, &word, sizeof word);
  };
  for (std::span<uint8_t> chunk : {a, b}) FillRandom(chunk, 7);
  put(a, 0, 1000);
  put(a, 1, 5000);
  put(b, 0, 1001);
  put(b, 1, 4999);
}

TEST_F(PageStoreTest, EqualHashesAreNotEqualChunks) {
  vmm::GuestMemory memory = TestMemory();
  std::span<uint8_t> ram = memory.regions()[0].host;
  std::span<uint8_t> a = ram.first(kChunkSize);
  std::span<uint8_t> b = ram.subspan(kChunkSize, kChunkSize);
  MakeColliding(a, b);
  ASSERT_NE(memcmp(a.data(), b.data(), kChunkSize), 0);
  ASSERT_EQ(HashChunk(a), HashChunk(b)) << "xxh3 has changed: this test must find other chunks";
  // In one snapshot, and each with what another one has stored.
  vmm::GuestMemory other = TestMemory();
  std::span<uint8_t> other_ram = other.regions()[0].host;
  memcpy(other_ram.data(), b.data(), kChunkSize);
  PageStore store = Store();
  PageStore::Added first = store.Add(Base("other", other)).value();
  PageStore::Added both = store.Add(Base("both", memory)).value();
  EXPECT_EQ(both.stored, 1u);
  EXPECT_EQ(ImageOf(Snapshot::Open(both.path).value()), ImageOf(memory));
  EXPECT_EQ(ImageOf(Snapshot::Open(first.path).value()), ImageOf(other));
  EXPECT_TRUE(store.Verify().value().empty());
  // And still when one of them is gone.
  ASSERT_TRUE(store.Remove(fs::path(first.path).filename()).ok());
  EXPECT_EQ(store.Gc().value().chunks_deleted, 0u);
  EXPECT_EQ(ImageOf(Snapshot::Open(both.path).value()), ImageOf(memory));
}

TEST_F(PageStoreTest, CollectsWhatNoSnapshotNames) {
  vmm::GuestMemory memory = TestMemory();
  FillRandom(memory.regions()[0].host.first(1 << 20), 1);
  PageStore store = Store();
  std::string first = store.Add(Base("a", memory)).value().path;
  FillRandom(memory.regions()[0].host.first(1 << 19), 2);
  std::string second = store.Add(Base("b", memory)).value().path;
  EXPECT_EQ(Packs().size(), 2u);
  Snapshot open = Snapshot::Open(first).value();
  auto lazy = Snapshot::OpenLazily(first, [](const Error&) {});
  ASSERT_TRUE(lazy.ok()) << lazy.error().message();
  ASSERT_TRUE(store.Remove(open.manifest().id).ok());
  EXPECT_FALSE(store.Remove(open.manifest().id).ok());
  EXPECT_EQ(store.Count().value().unused_chunks, 16u);
  PageStore::Collected collected = store.Gc().value();
  EXPECT_EQ(collected.chunks_deleted, 16u);
  EXPECT_GT(collected.bytes_freed, 1u << 19);
  EXPECT_EQ(Packs().size(), 1u);
  EXPECT_EQ(store.Count().value().unused_chunks, 0u);
  EXPECT_TRUE(store.Verify().value().empty());
  EXPECT_EQ(ImageOf(Snapshot::Open(second).value()), ImageOf(memory));
  // Who had it open goes on.
  EXPECT_EQ(ImageOf(*lazy), ImageOf(open));
  // There is nothing left to do.
  collected = store.Gc().value();
  EXPECT_EQ(collected.packs_deleted + collected.packs_written, 0u);
}

TEST_F(PageStoreTest, NamesWhatIsDamaged) {
  vmm::GuestMemory memory = TestMemory();
  FillRandom(memory.regions()[0].host.first(4 * kChunkSize), 1);
  PageStore store = Store();
  std::string path = store.Add(Base("a", memory)).value().path;
  std::string pack = Packs().at(0);
  auto flip = [](const std::string& file, uint64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    char byte = static_cast<char>(stream.get() ^ 4);
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(byte);
  };
  flip(pack, 16 + 2 * kChunkSize + 77);
  std::string chunk =
      HashChunk(memory.regions()[0].host.subspan(2 * kChunkSize, kChunkSize)).Name();
  std::vector<std::string> problems = store.Verify().value();
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0], pack + ": chunk " + chunk + " is damaged: it does not match its hash");
  EXPECT_EQ(problems[1], "snapshot " + fs::path(path).filename().string() +
                             " lacks 1 of its 4 chunks: " + chunk + " is damaged");
  EXPECT_NE(Snapshot::Open(path).error().message().find(chunk), std::string::npos);
  // Who adds the same again does not build on it.
  PageStore::Added again = store.Add(Base("b", memory)).value();
  EXPECT_EQ(again.stored, 1u);
  EXPECT_EQ(ImageOf(Snapshot::Open(again.path).value()), ImageOf(memory));
  // A pack whose index is damaged stops whoever would build on it, and loses nothing.
  flip(pack, fs::file_size(pack) - 33);
  EXPECT_EQ(store.Gc().error().message(), pack + ": its index does not match its checksum");
  EXPECT_EQ(store.Verify().value().at(0), pack + ": its index does not match its checksum");
  EXPECT_NE(Snapshot::Open(again.path).error().message().find("is not in the store"),
            std::string::npos);
  flip(pack, fs::file_size(pack) - 33);
  // So does a snapshot whose index is.
  flip(path + "/memory.cold", 50);
  EXPECT_EQ(store.Gc().error().message(), path + "/memory.cold: does not match its checksum");
  EXPECT_TRUE(Snapshot::Open(again.path).ok());
}

TEST_F(PageStoreTest, RefusesASnapshotOutsideItsStore) {
  vmm::GuestMemory memory = TestMemory();
  memory.regions()[0].host[0] = 1;
  PageStore store = Store();
  std::string path = store.Add(Base("a", memory)).value().path;
  fs::copy(path, work_ + "/elsewhere");
  EXPECT_NE(Snapshot::Open(work_ + "/elsewhere").error().message().find("is not in one"),
            std::string::npos);
  fs::create_directory_symlink(path, work_ + "/link");
  EXPECT_TRUE(Snapshot::Open(work_ + "/link").ok());
  // Another snapshot's index.
  memory.regions()[0].host[0] = 2;
  std::string other = store.Add(Base("b", memory)).value().path;
  fs::copy_file(other + "/memory.cold", path + "/memory.cold",
                fs::copy_options::overwrite_existing);
  EXPECT_NE(Snapshot::Open(path).error().message().find(
                "memory.cold does not match the manifest's length and checksum"),
            std::string::npos);
}

TEST_F(PageStoreTest, WritersWaitForOneAnother) {
  PageStore store = Store();
  std::vector<std::thread> threads;
  std::vector<std::string> paths(4);
  for (size_t i = 0; i < paths.size(); ++i) {
    vmm::GuestMemory memory = TestMemory();
    FillRandom(memory.regions()[0].host.first(1 << 20), 1);
    FillRandom(memory.regions()[0].host.subspan(2 << 20, 4096), static_cast<unsigned>(i + 2));
    auto snapshot = std::make_shared<Snapshot>(Base(Format("s%zu", i), memory));
    threads.emplace_back(
        [this, snapshot, &path = paths[i]] { path = Store().Add(*snapshot).value().path; });
    threads.emplace_back([this] { (void)Store().Gc().value(); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(store.Verify().value().empty());
  for (size_t i = 0; i < paths.size(); ++i) {
    EXPECT_EQ(ImageOf(Snapshot::Open(paths[i]).value()),
              ImageOf(Snapshot::Open(work_ + Format("/s%zu", i)).value()));
  }
  EXPECT_EQ(store.Count().value().chunks, 32u + 4u);
}

// A write that fails, at each of some sizes, leaves what is published, and nothing else.
TEST_F(PageStoreTest, AFullDiskLosesNothing) {
  vmm::GuestMemory memory = TestMemory();
  FillRandom(memory.regions()[0].host.first(1 << 20), 1);
  PageStore store = Store();
  std::string first = store.Add(Base("a", memory)).value().path;
  std::vector<uint8_t> before = ImageOf(memory);
  FillRandom(memory.regions()[0].host.first(2 << 20), 2);
  Snapshot next = Base("b", memory);
  signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  for (rlim_t limit : {0ul, 10ul, 5000ul, 1ul << 20, 2ul << 20, (2ul << 20) + 2000}) {
    rlimit small = {limit, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    auto added = store.Add(next);
    setrlimit(RLIMIT_FSIZE, &old);
    ASSERT_FALSE(added.ok()) << limit;
    EXPECT_NE(added.error().message().find("File too large"), std::string::npos)
        << added.error().message();
    EXPECT_EQ(store.Count().value().snapshots, 1u);
    for (const std::string& pack : Packs()) EXPECT_TRUE(pack.ends_with(".pack")) << pack;
  }
  // Gc writes a pack as well: half of what is there is named.
  store.Add(next).value();
  ASSERT_TRUE(store.Remove(fs::path(first).filename()).ok());
  FillRandom(memory.regions()[0].host.subspan(1 << 20, 1 << 20), 3);
  store.Add(Base("c", memory)).value();
  ASSERT_TRUE(store.Remove(next.manifest().id).ok());
  rlimit small = {5000, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  auto collected = store.Gc();
  setrlimit(RLIMIT_FSIZE, &old);
  ASSERT_FALSE(collected.ok());
  EXPECT_TRUE(store.Verify().value().empty());
  EXPECT_GT(store.Gc().value().bytes_freed, 1u << 20);
  EXPECT_TRUE(store.Verify().value().empty());
  Snapshot c = Snapshot::Open(work_ + "/c").value();
  EXPECT_EQ(ImageOf(Snapshot::Open(store.SnapshotPath(c.manifest().id)).value()), ImageOf(memory));
}

}  // namespace
}  // namespace cube::snapshot
