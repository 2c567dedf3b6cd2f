// The file system device as a guest's kernel uses it, on real directories.
#include "devices/fs/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "devices/fs/testing/fuse_client.h"

namespace cube::devices::fs {
namespace {

using testing::Answer;
using testing::DirectoryEntry;
using testing::FuseClient;
using testing::HostTree;

ShareConfig Share(const HostTree& tree, bool read_only = false) {
  ShareConfig config;
  config.directory = tree.share();
  config.tag = "work";
  config.read_only = read_only;
  return config;
}

class FsTest : public ::testing::Test {
 protected:
  HostTree tree_;
  FuseClient client_{Share(tree_)};
};

// ---- device and session

TEST_F(FsTest, TagAndOneQueueAreInTheConfiguration) {
  auto bytes = client_.driver().ReadConfig(0, sizeof(Config));
  std::string tag(bytes.begin(), bytes.begin() + 4);
  EXPECT_EQ(tag, "work");
  EXPECT_EQ(std::count(bytes.begin() + 4, bytes.begin() + 36, 0), 32);
  EXPECT_EQ(bytes[36], 1);
}

TEST(FsDevice, TagsThatAreNoFileNamesAreRefused) {
  for (const char* good : {"a", "Work.tree_1-x", "123456789012345678901234567890123456"}) {
    EXPECT_TRUE(FsDevice::CheckTag(good).ok()) << good;
  }
  for (const char* bad :
       {"", ".", "..", "a/b", "a b", "a:b", "\xc3\xa4", "1234567890123456789012345678901234567"}) {
    EXPECT_FALSE(FsDevice::CheckTag(bad).ok()) << bad;
  }
}

TEST(FsDevice, WhatIsNoDirectoryCannotBeShared) {
  HostTree tree;
  tree.Write("share/file", "");
  auto loop = vmm::EventLoop::Create().value();
  ShareConfig config = Share(tree);
  for (const char* path : {"/no/such", "/dev/null"}) {
    config.directory = path;
    auto device = FsDevice::Create(config, &loop);
    ASSERT_FALSE(device.ok());
    EXPECT_NE(device.error().message().find(path), std::string::npos);
  }
}

TEST(FsSession, VersionsAreNegotiated) {
  HostTree tree;
  FuseClient client(Share(tree), false);
  EXPECT_EQ(client.GetAttributes(kRootNode).error, EIO);  // there is no session yet
  EXPECT_EQ(client.Init(7, 30).error, EPROTO);
  EXPECT_EQ(client.Init(6, 99).error, EPROTO);
  EXPECT_EQ(client.Init(8, 0).As<fuse_init_out>().major, 7u);
  EXPECT_EQ(client.GetAttributes(kRootNode).error, EIO);
  auto out =
      client.Init(7, 31, FUSE_MAX_PAGES | FUSE_ASYNC_READ | FUSE_POSIX_ACL).As<fuse_init_out>();
  EXPECT_EQ(out.minor, 38u);
  EXPECT_EQ(out.flags, uint32_t{FUSE_MAX_PAGES | FUSE_ASYNC_READ});
  EXPECT_EQ(out.max_write, kMaxTransfer);
  EXPECT_EQ(out.max_pages, kMaxTransfer / 4096);
  EXPECT_EQ(out.map_alignment, 0u);
  EXPECT_EQ(client.GetAttributes(kRootNode).error, 0);
  EXPECT_EQ(client.Do(FUSE_DESTROY, 0).error, 0);
  EXPECT_EQ(client.GetAttributes(kRootNode).error, EIO);
}

TEST_F(FsTest, ANewSessionKnowsNothingOfTheOld) {
  tree_.Write("share/file", "x");
  uint64_t node = client_.Walk("file");
  ASSERT_NE(client_.OpenHandle(node, O_RDONLY), 0u);
  EXPECT_EQ(client_.Metric("open_files"), 1u);
  ASSERT_EQ(client_.Init().error, 0);
  EXPECT_EQ(client_.GetAttributes(node).error, ESTALE);
  EXPECT_EQ(client_.Metric("open_files"), 0u);
  EXPECT_EQ(client_.Metric("inodes"), 1u);
}

TEST_F(FsTest, WhatIsNotServedIsEnosys) {
  for (uint32_t opcode : {0u, 31u, 37u, 39u, 40u, 48u, 50u, 51u, 52u, 4096u, ~0u}) {
    EXPECT_EQ(client_.Do(opcode, kRootNode).error, ENOSYS) << opcode;
  }
}

TEST_F(FsTest, ManyRequestsAreServedInTurns) {
  std::vector<uint8_t> request =
      FuseClient::Request(FUSE_GETATTR, kRootNode, FuseClient::Pack(fuse_getattr_in{}));
  constexpr uint32_t kCount = 3 * kTurnRequests + 1;
  for (uint32_t i = 0; i < kCount; ++i) {
    client_.driver().AddRequest(kRequestQueue, request, {200}, nullptr);
  }
  client_.driver().Kick(kRequestQueue);
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(client_.driver().WaitUsed(kRequestQueue)->written,
              sizeof(fuse_out_header) + sizeof(fuse_attr_out));
  }
  EXPECT_EQ(client_.Metric("full_turns"), 3u);
}

// ---- names

TEST_F(FsTest, LookupTellsWhatTheHostSees) {
  tree_.Mkdir("share/sub");
  tree_.Write("share/sub/file", "hello");
  auto entry = client_.Lookup(client_.Walk("sub"), "file").As<fuse_entry_out>();
  struct stat stat;
  ASSERT_EQ(lstat(tree_.Path("share/sub/file").c_str(), &stat), 0);
  EXPECT_EQ(entry.attr.ino, stat.st_ino);
  EXPECT_EQ(entry.attr.size, 5u);
  EXPECT_EQ(entry.attr.mode, stat.st_mode);
  EXPECT_EQ(entry.attr.mtime, static_cast<uint64_t>(stat.st_mtim.tv_sec));
  EXPECT_EQ(entry.attr.nlink, 1u);
  EXPECT_EQ(entry.attr.uid, 1000u);
  EXPECT_EQ(entry.attr.gid, 1000u);
  EXPECT_EQ(client_.Lookup(kRootNode, "none").error, ENOENT);
  EXPECT_EQ(client_.Lookup(entry.nodeid, "x").error, ENOTDIR);
  EXPECT_EQ(client_.Lookup(99, "x").error, ESTALE);
}

TEST_F(FsTest, NodesLiveUntilTheLastLookupIsForgotten) {
  tree_.Write("share/file", "");
  uint64_t node = client_.Walk("file");
  EXPECT_EQ(client_.Walk("file"), node);
  client_.Forget(node, 1);
  EXPECT_EQ(client_.GetAttributes(node).error, 0);
  client_.Forget(node, 1);
  EXPECT_EQ(client_.GetAttributes(node).error, ESTALE);
  uint64_t again = client_.Walk("file");
  EXPECT_GT(again, node);  // never used again
  client_.Call(FUSE_BATCH_FORGET, 0,
               FuseClient::Pack(fuse_batch_forget_in{2, 0}, fuse_forget_one{again, 1},
                                fuse_forget_one{kRootNode, 1000}),
               0, kHighPriorityQueue);
  EXPECT_EQ(client_.GetAttributes(again).error, ESTALE);
  EXPECT_EQ(client_.GetAttributes(kRootNode).error, 0);
}

TEST_F(FsTest, AnOpenFileOutlivesItsForgottenName) {
  tree_.Write("share/file", "content");
  uint64_t node = client_.Walk("file");
  uint64_t handle = client_.OpenHandle(node, O_RDONLY);
  client_.Forget(node, 1);
  EXPECT_EQ(client_.Read(node, handle, 0, 100).text(), "content");
  EXPECT_EQ(client_.Release(node, handle).error, 0);
  EXPECT_EQ(client_.Metric("inodes"), 1u);
}

TEST_F(FsTest, TreesAreMadeRenamedAndRemoved) {
  uint64_t a = client_.Mkdir(kRootNode, "a", 0750).As<fuse_entry_out>().nodeid;
  EXPECT_EQ(tree_.Mode("share/a"), 0750u);
  EXPECT_EQ(client_.Mkdir(kRootNode, "a").error, EEXIST);
  uint64_t b = client_.Mkdir(a, "b", 0777).As<fuse_entry_out>().nodeid;
  EXPECT_EQ(tree_.Mode("share/a/b"), 0777u);  // the guest's umask counts, not the host's
  Answer made = client_.Create(b, "file", O_RDWR | O_CREAT | O_EXCL, 0666);
  ASSERT_EQ(made.error, 0);
  uint64_t handle = made.As<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  uint64_t file = made.As<fuse_entry_out>().nodeid;
  EXPECT_EQ(client_.Write(file, handle, 3, "abc").As<fuse_write_out>().size, 3u);
  EXPECT_EQ(tree_.Read("share/a/b/file"), std::string("\0\0\0abc", 6));
  EXPECT_EQ(client_.Create(b, "file", O_RDWR | O_EXCL).error, EEXIST);

  EXPECT_EQ(client_.Rename(b, "file", kRootNode, "moved").error, 0);
  EXPECT_EQ(client_.Do(FUSE_RENAME, kRootNode, fuse_rename_in{a}, "moved", "back").error, 0);
  EXPECT_TRUE(tree_.Exists("share/a/back"));
  EXPECT_EQ(client_.Walk("a/back"), file);
  tree_.Write("share/other", "other");
  EXPECT_EQ(client_.Rename(a, "back", kRootNode, "other", RENAME_NOREPLACE).error, EEXIST);
  EXPECT_EQ(client_.Rename(a, "back", kRootNode, "other", RENAME_EXCHANGE).error, 0);
  EXPECT_EQ(tree_.Read("share/a/back"), "other");
  EXPECT_EQ(client_.Rename(a, "back", kRootNode, "other", RENAME_WHITEOUT).error, EINVAL);

  EXPECT_EQ(client_.Do(FUSE_RMDIR, kRootNode, "a").error, ENOTEMPTY);
  EXPECT_EQ(client_.Do(FUSE_UNLINK, kRootNode, "a").error, EISDIR);
  EXPECT_EQ(client_.Do(FUSE_RMDIR, a, "b").error, 0);
  EXPECT_EQ(client_.Do(FUSE_UNLINK, a, "back").error, 0);
  EXPECT_EQ(client_.Do(FUSE_RMDIR, kRootNode, "a").error, 0);
  EXPECT_FALSE(tree_.Exists("share/a"));
}

TEST_F(FsTest, CreateOfAFileTheHostHasMadeMeanwhileOpensIt) {
  tree_.Write("share/file", "old content");
  Answer made = client_.Create(kRootNode, "file", O_RDWR | O_TRUNC);
  ASSERT_EQ(made.error, 0);
  EXPECT_EQ(tree_.Read("share/file"), "");
  tree_.Mkdir("share/dir");
  EXPECT_EQ(client_.Create(kRootNode, "dir", O_RDWR).error, EISDIR);
}

TEST_F(FsTest, HardAndSymbolicLinks) {
  tree_.Write("share/file", "x");
  uint64_t file = client_.Walk("file");
  auto linked = client_.Do(FUSE_LINK, kRootNode, fuse_link_in{file}, "second");
  EXPECT_EQ(linked.As<fuse_entry_out>().nodeid, file);
  EXPECT_EQ(linked.As<fuse_entry_out>().attr.nlink, 2u);
  EXPECT_EQ(client_.Do(FUSE_LINK, kRootNode, fuse_link_in{kRootNode}, "third").error, EPERM);

  auto made = client_.Do(FUSE_SYMLINK, kRootNode, "pointer", "file").As<fuse_entry_out>();
  EXPECT_TRUE(S_ISLNK(made.attr.mode));
  EXPECT_EQ(client_.Do(FUSE_READLINK, made.nodeid).text(), "file");
  EXPECT_EQ(client_.Do(FUSE_READLINK, file).error, EINVAL);
  // A link of the link itself.
  auto copy = client_.Do(FUSE_LINK, kRootNode, fuse_link_in{made.nodeid}, "pointer2");
  EXPECT_EQ(copy.As<fuse_entry_out>().nodeid, made.nodeid);
  std::string longest(4095, 'x');
  EXPECT_EQ(client_.Do(FUSE_SYMLINK, kRootNode, "long", longest).error, 0);
  EXPECT_EQ(client_.Do(FUSE_READLINK, client_.Walk("long")).text(), longest);
  EXPECT_EQ(client_.Do(FUSE_SYMLINK, kRootNode, "longer", longest + "x").error, ENAMETOOLONG);
}

TEST_F(FsTest, FifosAndFilesAreMadeByMknod) {
  fuse_mknod_in in = {};
  in.mode = S_IFIFO | 0644;
  auto made = client_.Do(FUSE_MKNOD, kRootNode, in, "fifo").As<fuse_entry_out>();
  EXPECT_TRUE(S_ISFIFO(made.attr.mode));
  EXPECT_EQ(client_.Open(made.nodeid, O_RDONLY).error, ENXIO);
  in.mode = S_IFREG | 0600;
  EXPECT_TRUE(
      S_ISREG(client_.Do(FUSE_MKNOD, kRootNode, in, "plain").As<fuse_entry_out>().attr.mode));
}

// ---- content

TEST_F(FsTest, ContentGoesBothWaysInLargeTransfers) {
  std::string data(kMaxTransfer, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761u >> 24);
  Answer made = client_.Create(kRootNode, "large", O_RDWR);
  uint64_t node = made.As<fuse_entry_out>().nodeid;
  uint64_t handle = made.As<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  ASSERT_EQ(client_.Write(node, handle, 1, data).As<fuse_write_out>().size, kMaxTransfer);
  EXPECT_TRUE(tree_.Read("share/large") == '\0' + data);
  Answer read = client_.Read(node, handle, 1, kMaxTransfer);
  EXPECT_TRUE(read.text() == data);
  EXPECT_EQ(client_.Read(node, handle, kMaxTransfer - 1, 4096).payload.size(), 2u);
  EXPECT_EQ(client_.Read(node, handle, 5 << 20, 4096).payload.size(), 0u);
  EXPECT_EQ(client_.Metric("bytes_written"), kMaxTransfer);
  EXPECT_EQ(client_.Metric("bytes_read"), kMaxTransfer + 2);
  fuse_fsync_in sync = {};
  sync.fh = handle;
  EXPECT_EQ(client_.Do(FUSE_FSYNC, node, sync).error, 0);
  fuse_flush_in flush = {};
  flush.fh = handle;
  EXPECT_EQ(client_.Do(FUSE_FLUSH, node, flush).error, 0);
  EXPECT_EQ(client_.Release(node, handle).error, 0);
  EXPECT_EQ(client_.Release(node, handle).error, EBADF);
  EXPECT_EQ(client_.Read(node, handle, 0, 1).error, EBADF);
}

TEST_F(FsTest, AccessIsAsTheFileWasOpened) {
  tree_.Write("share/file", "content");
  uint64_t node = client_.Walk("file");
  uint64_t reader = client_.OpenHandle(node, O_RDONLY);
  EXPECT_EQ(client_.Write(node, reader, 0, "x").error, EBADF);
  uint64_t writer = client_.OpenHandle(node, O_WRONLY);
  EXPECT_EQ(client_.Read(node, writer, 0, 10).error, EBADF);
  uint64_t appender = client_.OpenHandle(node, O_WRONLY | O_APPEND);
  EXPECT_EQ(client_.Write(node, appender, 0, "+").error, 0);
  EXPECT_EQ(tree_.Read("share/file"), "content+");
  EXPECT_EQ(client_.Open(node, O_ACCMODE).error, EINVAL);
  EXPECT_EQ(client_.Open(kRootNode, O_RDONLY).error, EISDIR);
}

TEST_F(FsTest, HolesCopiesAndAllocation) {
  Answer made = client_.Create(kRootNode, "a", O_RDWR);
  uint64_t node = made.As<fuse_entry_out>().nodeid;
  uint64_t a = made.As<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  uint64_t b = client_.Create(kRootNode, "b", O_RDWR).As<fuse_open_out>(sizeof(fuse_entry_out)).fh;
  client_.Write(node, a, 1 << 20, "data");
  fuse_lseek_in seek = {};
  seek.fh = a;
  seek.whence = SEEK_DATA;
  EXPECT_EQ(client_.Do(FUSE_LSEEK, node, seek).As<fuse_lseek_out>().offset, 1u << 20);
  seek.whence = SEEK_HOLE;
  EXPECT_EQ(client_.Do(FUSE_LSEEK, node, seek).As<fuse_lseek_out>().offset, 0u);
  seek.whence = SEEK_END;
  EXPECT_EQ(client_.Do(FUSE_LSEEK, node, seek).error, EINVAL);

  fuse_copy_file_range_in copy = {};
  copy.fh_in = a;
  copy.off_in = (1 << 20) + 1;
  copy.fh_out = b;
  copy.off_out = 2;
  copy.len = 1ull << 40;
  EXPECT_EQ(client_.Do(FUSE_COPY_FILE_RANGE, node, copy).As<fuse_write_out>().size, 3u);
  EXPECT_EQ(tree_.Read("share/b"), std::string("\0\0ata", 5));

  fuse_fallocate_in allocate = {};
  allocate.fh = b;
  allocate.length = 8192;
  EXPECT_EQ(client_.Do(FUSE_FALLOCATE, node, allocate).error, 0);
  EXPECT_EQ(tree_.Read("share/b").size(), 8192u);
  allocate.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  EXPECT_EQ(client_.Do(FUSE_FALLOCATE, node, allocate).error, 0);
  EXPECT_EQ(tree_.Read("share/b"), std::string(8192, '\0'));
  allocate.mode = FALLOC_FL_COLLAPSE_RANGE;
  EXPECT_EQ(client_.Do(FUSE_FALLOCATE, node, allocate).error, EOPNOTSUPP);
}

// ---- directories

TEST_F(FsTest, DirectoriesAreReadWholeInPiecesOfAnySize) {
  tree_.Mkdir("share/dir");
  std::vector<std::string> names = {".", ".."};
  for (int i = 0; i < 300; ++i) {
    names.push_back("file-" + std::string(static_cast<size_t>(i % 200), 'n') + std::to_string(i));
    tree_.Write("share/dir/" + names.back(), "");
  }
  std::ranges::sort(names);
  uint64_t dir = client_.Walk("dir");
  for (bool plus : {false, true}) {
    for (uint32_t size : {512u, 4096u, 131072u}) {
      std::vector<DirectoryEntry> entries = client_.List(dir, plus, size);
      std::vector<std::string> found;
      for (const DirectoryEntry& entry : entries) {
        found.push_back(entry.name);
        bool dots = entry.name == "." || entry.name == "..";
        EXPECT_EQ(entry.node != 0, plus && !dots) << entry.name;
        EXPECT_EQ(entry.type, dots ? DT_DIR : DT_REG);
      }
      std::ranges::sort(found);
      EXPECT_EQ(found, names) << size;
    }
  }
  EXPECT_EQ(client_.Metric("inodes"), 302u);
  EXPECT_EQ(client_.Metric("open_files"), 0u);
}

TEST_F(FsTest, TheParentOfTheRootIsNotShown) {
  struct stat root;
  ASSERT_EQ(stat(tree_.share().c_str(), &root), 0);
  for (const DirectoryEntry& entry : client_.List(kRootNode)) EXPECT_EQ(entry.inode, root.st_ino);
}

// ---- attributes

TEST_F(FsTest, AttributesAreSet) {
  tree_.Write("share/file", "0123456789");
  uint64_t node = client_.Walk("file");
  fuse_setattr_in in = {};
  in.valid = FATTR_MODE | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME;
  in.mode = 0640;
  in.size = 4;
  in.atime = 1000;
  in.mtime = 2000;
  in.mtimensec = 123456789;
  auto out = client_.SetAttributes(node, in).As<fuse_attr_out>().attr;
  EXPECT_EQ(out.mode, uint32_t{S_IFREG} | 0640u);
  EXPECT_EQ(out.size, 4u);
  EXPECT_EQ(out.atime, 1000u);
  EXPECT_EQ(out.mtime, 2000u);
  EXPECT_EQ(out.mtimensec, 123456789u);
  in.valid = FATTR_MTIME | FATTR_MTIME_NOW;
  out = client_.SetAttributes(node, in).As<fuse_attr_out>().attr;
  EXPECT_GT(out.mtime, 1'000'000'000u);
  EXPECT_EQ(out.atime, 1000u);
  EXPECT_EQ(tree_.Read("share/file"), "0123");
  in.valid = FATTR_MTIME;
  in.mtimensec = 1'000'000'000;
  EXPECT_EQ(client_.SetAttributes(node, in).error, EINVAL);
  in.valid = FATTR_SIZE;
  in.size = ~0ull;
  EXPECT_EQ(client_.SetAttributes(node, in).error, EFBIG);
  EXPECT_EQ(client_.SetAttributes(kRootNode, in).error, EISDIR);
}

TEST_F(FsTest, AFileThatMayNotBeWrittenAnyMoreIsCutByItsHandle) {
  tree_.Write("share/file", "0123456789");
  uint64_t node = client_.Walk("file");
  fuse_setattr_in in = {};
  in.valid = FATTR_SIZE | FATTR_FH;
  in.fh = client_.OpenHandle(node, O_WRONLY);
  in.size = 2;
  tree_.Chmod("share/file", 0);
  EXPECT_EQ(client_.SetAttributes(node, in).error, 0);
  EXPECT_EQ(std::filesystem::file_size(tree_.Path("share/file")), 2u);
}

TEST_F(FsTest, TimesOfALinkAreItsOwn) {
  tree_.Write("share/file", "");
  client_.Do(FUSE_SYMLINK, kRootNode, "pointer", "file");
  fuse_setattr_in in = {};
  in.valid = FATTR_MTIME;
  in.mtime = 77;
  uint64_t pointer = client_.Walk("pointer");
  EXPECT_EQ(client_.SetAttributes(pointer, in).As<fuse_attr_out>().attr.mtime, 77u);
  EXPECT_NE(client_.GetAttributes(client_.Walk("file")).As<fuse_attr_out>().attr.mtime, 77u);
  in.valid = FATTR_MODE;
  EXPECT_EQ(client_.SetAttributes(pointer, in).error, EOPNOTSUPP);
}

TEST_F(FsTest, StatfsIsTheHosts) {
  struct statfs {
    uint64_t blocks;
  } out = client_.Do(FUSE_STATFS, kRootNode).As<statfs>();
  EXPECT_GT(out.blocks, 0u);
}

TEST_F(FsTest, AccessIsChecked) {
  tree_.Write("share/file", "");
  tree_.Chmod("share/file", 0644);
  uint64_t node = client_.Walk("file");
  EXPECT_EQ(client_.Do(FUSE_ACCESS, node, fuse_access_in{R_OK, 0}).error, 0);
  EXPECT_EQ(client_.Do(FUSE_ACCESS, node, fuse_access_in{X_OK, 0}).error, EACCES);
  EXPECT_EQ(client_.Do(FUSE_ACCESS, node, fuse_access_in{0x100, 0}).error, EINVAL);
}

Answer SetXattr(FuseClient& client, uint64_t node, const std::string& name,
                const std::string& value, uint32_t flags = 0) {
  struct {
    uint32_t size;
    uint32_t flags;
  } in = {static_cast<uint32_t>(value.size()), flags};
  auto arguments = FuseClient::Pack(in, name);
  arguments.insert(arguments.end(), value.begin(), value.end());
  return client.Call(FUSE_SETXATTR, node, arguments);
}

TEST_F(FsTest, ExtendedAttributesOfUsers) {
  tree_.Write("share/file", "");
  uint64_t node = client_.Walk("file");
  EXPECT_EQ(SetXattr(client_, node, "user.one", "value").error, 0);
  EXPECT_EQ(SetXattr(client_, node, "user.one", "x", 1).error, EEXIST);
  EXPECT_EQ(SetXattr(client_, node, "user.two", std::string("\0b", 2)).error, 0);
  auto get = [&](const char* name, uint32_t size) {
    return client_.Do(FUSE_GETXATTR, node, fuse_getxattr_in{size, 0}, name);
  };
  EXPECT_EQ(get("user.one", 0).As<fuse_getxattr_out>().size, 5u);
  EXPECT_EQ(get("user.one", 100).text(), "value");
  EXPECT_EQ(get("user.one", 4).error, ERANGE);
  EXPECT_EQ(get("user.none", 4).error, ENODATA);
  EXPECT_EQ(client_.Do(FUSE_LISTXATTR, node, fuse_getxattr_in{0, 0}).As<fuse_getxattr_out>().size,
            18u);
  Answer list = client_.Do(FUSE_LISTXATTR, node, fuse_getxattr_in{100, 0});
  EXPECT_NE(list.text().find(std::string("user.two\0", 9)), std::string::npos);
  EXPECT_EQ(client_.Do(FUSE_LISTXATTR, node, fuse_getxattr_in{10, 0}).error, ERANGE);
  EXPECT_EQ(client_.Do(FUSE_REMOVEXATTR, node, "user.one").error, 0);
  EXPECT_EQ(get("user.one", 100).error, ENODATA);
}

TEST_F(FsTest, ExtendedAttributesOfTheSystemAreOutOfReach) {
  tree_.Write("share/file", "");
  uint64_t node = client_.Walk("file");
  for (const char* name :
       {"security.capability", "trusted.x", "system.posix_acl_access", "user", "users.x", ""}) {
    EXPECT_EQ(client_.Do(FUSE_GETXATTR, node, fuse_getxattr_in{100, 0}, name).error, EOPNOTSUPP);
    EXPECT_EQ(SetXattr(client_, node, name, "x").error, EPERM) << name;
    EXPECT_EQ(client_.Do(FUSE_REMOVEXATTR, node, name).error, EPERM);
  }
}

// ---- limits

TEST(FsLimits, ColdInodesAreFoundAgainAndTheirNumberIsBounded) {
  HostTree tree;
  ShareConfig config = Share(tree);
  config.limits.inodes = 40;
  config.limits.warm_inodes = 4;
  config.limits.handles = 2;
  FuseClient client(config);
  std::vector<uint64_t> nodes;
  tree.Mkdir("share/dir");
  uint64_t dir = client.Walk("dir");
  for (int i = 0; i < 38; ++i) {
    std::string name = "f" + std::to_string(i);
    tree.Write("share/dir/" + name, name);
    nodes.push_back(client.Lookup(dir, name).As<fuse_entry_out>().nodeid);
  }
  EXPECT_EQ(client.Metric("inodes"), 40u);
  for (size_t i = 0; i < nodes.size(); ++i) {
    uint64_t handle = client.OpenHandle(nodes[i], O_RDONLY);
    EXPECT_EQ(client.Read(nodes[i], handle, 0, 100).text(), "f" + std::to_string(i));
    client.Release(nodes[i], handle);
  }
  tree.Write("share/more", "");
  EXPECT_EQ(client.Lookup(kRootNode, "more").error, ENFILE);
  client.Forget(nodes[0], 1);
  EXPECT_EQ(client.Lookup(kRootNode, "more").error, 0);
  EXPECT_NE(client.OpenHandle(nodes[1], O_RDONLY), 0u);
  EXPECT_NE(client.OpenHandle(nodes[2], O_RDONLY), 0u);
  EXPECT_EQ(client.Open(nodes[3], O_RDONLY).error, ENFILE);
  EXPECT_EQ(client.Do(FUSE_OPENDIR, kRootNode, fuse_open_in{}).error, ENFILE);
  EXPECT_EQ(client.Create(kRootNode, "new", O_RDWR).error, ENFILE);
  EXPECT_FALSE(tree.Exists("share/new"));
}

TEST(FsLimits, AColdInodeIsNotTakenForAnotherFileOfItsName) {
  HostTree tree;
  ShareConfig config = Share(tree);
  config.limits.warm_inodes = 4;
  FuseClient client(config);
  tree.Write("share/file", "one");
  uint64_t node = client.Walk("file");
  for (int i = 0; i < 8; ++i) {
    tree.Write("share/f" + std::to_string(i), "");
    client.Walk("f" + std::to_string(i));
  }
  tree.Rename("share/file", "share/kept");
  tree.Write("share/file", "two");
  EXPECT_EQ(client.GetAttributes(node).error, ESTALE);
  EXPECT_NE(client.Walk("file"), node);
  EXPECT_EQ(client.Walk("kept"), node);  // it is the file that was looked up
  EXPECT_EQ(client.GetAttributes(node).error, 0);
}

// ---- read-only shares

TEST(FsReadOnly, NothingChanges) {
  HostTree tree;
  tree.Write("share/file", "content");
  tree.Mkdir("share/dir");
  FuseClient client(Share(tree, true));
  uint64_t node = client.Walk("file");
  uint64_t handle = client.OpenHandle(node, O_RDONLY);
  EXPECT_EQ(client.Read(node, handle, 0, 100).text(), "content");
  EXPECT_EQ(client.List(kRootNode, true).size(), 4u);
  EXPECT_EQ(client.Open(node, O_WRONLY).error, EROFS);
  EXPECT_EQ(client.Open(node, O_RDWR).error, EROFS);
  EXPECT_EQ(client.Open(node, O_RDONLY | O_TRUNC).error, EROFS);
  EXPECT_EQ(client.Do(FUSE_ACCESS, node, fuse_access_in{W_OK, 0}).error, EROFS);
  EXPECT_EQ(client.Write(node, handle, 0, "x").error, EROFS);
  EXPECT_EQ(client.Create(kRootNode, "x", O_RDWR).error, EROFS);
  EXPECT_EQ(client.Mkdir(kRootNode, "x").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_MKNOD, kRootNode, fuse_mknod_in{S_IFREG, 0, 0, 0}, "x").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_UNLINK, kRootNode, "file").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_RMDIR, kRootNode, "dir").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_RENAME, kRootNode, fuse_rename_in{kRootNode}, "file", "x").error, EROFS);
  EXPECT_EQ(client.Rename(kRootNode, "file", kRootNode, "x").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_SYMLINK, kRootNode, "x", "y").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_LINK, kRootNode, fuse_link_in{node}, "x").error, EROFS);
  EXPECT_EQ(client.SetAttributes(node, {}).error, EROFS);
  EXPECT_EQ(SetXattr(client, node, "user.x", "x").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_REMOVEXATTR, node, "user.x").error, EROFS);
  EXPECT_EQ(client.Do(FUSE_FALLOCATE, node, fuse_fallocate_in{}).error, EROFS);
  EXPECT_EQ(client.Do(FUSE_COPY_FILE_RANGE, node, fuse_copy_file_range_in{}).error, EROFS);
  EXPECT_EQ(tree.Read("share/file"), "content");
}

}  // namespace
}  // namespace cube::devices::fs
