#include "pool/store.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  std::string folder_ = ::testing::TempDir() + "/store";
  std::string path_ = folder_ + "/cubed.db";
};

SandboxRecord Example() {
  SandboxRecord record;
  record.id = "0123456789abcdef0123";
  record.template_name = "python";
  record.state = SandboxState::kPausing;
  record.pid = 4711;
  record.start_ticks = 123456789012;
  record.boot_id = "b";
  record.created_ms = 1'700'000'000'000;
  record.deadline_ms = 1'700'000'300'000;
  record.timeout_seconds = 300;
  record.on_timeout = OnTimeout::kPause;
  record.memory_mib = 512;
  record.cpus = 2;
  record.limits = {640, 1.5};
  record.token = "t'\"";
  record.environment = {"A=1", "B=\n\"\xc3\xa4"};
  record.metadata = {{"user", "x"}, {"", "empty"}};
  record.base = "/t";
  record.snapshot = "/s";
  record.pending = "/p";
  record.reason = "r";
  record.vsock = "/v";
  record.volumes = {{"id", "na\"me", "/x y"}, {"2", "other", "/\xc3\xa4"}};
  record.annotation = "{\"a\":1}";
  record.network = net::Policy::Parse({"1.1.1.1:53/udp", "*.x.org"}, {"0.0.0.0/0"}, true).value();
  record.network.bytes_per_second = 5'000'000'000;
  record.ports = {{6, 18000, 80}, {17, 65535, 1}};
  return record;
}

TEST_F(StoreTest, EverythingComesBack) {
  SandboxRecord record = Example();
  {
    Store store = Store::Open(path_).value();
    ASSERT_TRUE(store.Put(record).ok());
    record.state = SandboxState::kPaused;
    ASSERT_TRUE(store.Put(record, Durability::kHard).ok());
    ASSERT_TRUE(
        store.Put({"s1", "/s1", record.id, "python", "n", true, 5, 512, 2, record.volumes}).ok());
  }
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  Store store = Store::Open(path_).value();
  auto all = store.Sandboxes().value();
  ASSERT_EQ(all.size(), 1u);
  const SandboxRecord& found = all[0];
  EXPECT_EQ(found.state, SandboxState::kPaused);
  EXPECT_EQ(found.pid, record.pid);
  EXPECT_EQ(found.start_ticks, record.start_ticks);
  EXPECT_EQ(found.deadline_ms, record.deadline_ms);
  EXPECT_EQ(found.on_timeout, OnTimeout::kPause);
  EXPECT_EQ(found.limits.cpus, 1.5);
  EXPECT_EQ(found.limits.memory_mib, 640u);
  EXPECT_EQ(found.token, record.token);
  EXPECT_EQ(found.environment, record.environment);
  EXPECT_EQ(found.metadata, record.metadata);
  EXPECT_EQ(found.volumes, record.volumes);
  EXPECT_EQ(found.vsock, "/v");
  EXPECT_EQ(found.annotation, record.annotation);
  EXPECT_TRUE(found.network == record.network);
  EXPECT_EQ(found.ports, record.ports);
  auto snapshots = store.Snapshots().value();
  ASSERT_EQ(snapshots.size(), 1u);
  EXPECT_TRUE(snapshots[0].named);
  EXPECT_EQ(snapshots[0].memory_mib, 512u);
  EXPECT_EQ(snapshots[0].volumes, record.volumes);
  EXPECT_TRUE(store.RemoveSnapshot("s1").ok());
  EXPECT_TRUE(store.RemoveSandbox(record.id).ok());
  EXPECT_TRUE(store.Sandboxes().value().empty());
  EXPECT_TRUE(store.Snapshots().value().empty());
}

TEST_F(StoreTest, ANewerOneAndADamagedOneAreRefused) {
  { ASSERT_TRUE(Store::Open(path_).ok()); }
  {
    Database database = Database::Open(path_).value();
    ASSERT_TRUE(database.Execute("PRAGMA user_version=99").ok());
  }
  EXPECT_EQ(Store::Open(path_).error().message(),
            "the store has version 99, and this program knows versions up to 4");
  fs::remove_all(folder_);
  fs::create_directories(folder_);
  {
    Store store = Store::Open(path_).value();
    ASSERT_TRUE(store.Put(Example()).ok());
    Database database = Database::Open(path_).value();
    ASSERT_TRUE(database.Execute("UPDATE sandboxes SET state='dancing'").ok());
    EXPECT_NE(store.Sandboxes().error().message().find("\"dancing\", which is no state"),
              std::string::npos);
    ASSERT_TRUE(database.Execute("UPDATE sandboxes SET state='dead', metadata='[1'").ok());
    EXPECT_NE(store.Sandboxes().error().message().find("damaged words"), std::string::npos);
  }
}

// A disk without room: the error says so, and what was there stays.
TEST_F(StoreTest, AFullDiskIsAnError) {
  Store store = Store::Open(path_).value();
  SandboxRecord record = Example();
  ASSERT_TRUE(store.Put(record).ok());
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit limit = {64 * 1024, old.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  Status put;
  for (int i = 0; i < 1000 && put.ok(); ++i) {
    record.id = Format("%020d", i);
    record.token = std::string(1000, 'x');
    put = store.Put(record);
  }
  setrlimit(RLIMIT_FSIZE, &old);
  ASSERT_FALSE(put.ok());
  EXPECT_NE(put.error().message().find("the store"), std::string::npos);
  EXPECT_TRUE(store.Put(record).ok());
  EXPECT_GT(store.Sandboxes().value().size(), 1u);
}

}  // namespace
}  // namespace cube::pool
