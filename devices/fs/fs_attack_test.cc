// What a guest tries in order to reach, through a share, what was not shared; in places with the
// host's help, which changes the tree meanwhile.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "devices/fs/testing/fuse_client.h"

namespace cube::devices::fs {
namespace {

using testing::Answer;
using testing::FuseClient;
using testing::HostTree;

constexpr char kSecret[] = "not for the guest";

ShareConfig Share(const HostTree& tree, bool read_only = false) {
  ShareConfig config;
  config.directory = tree.share();
  config.tag = "work";
  config.read_only = read_only;
  return config;
}

class FsAttackTest : public ::testing::Test {
 protected:
  FsAttackTest() {
    tree_.Write("secret", kSecret);
    tree_.Mkdir("outside");
    tree_.Write("outside/secret", kSecret);
    tree_.Mkdir("share/dir/sub");
    tree_.Write("share/dir/file", "inside");
  }
  // Every way to name the secret is refused by what it looks like.
  void ExpectRefused(const Answer& answer) {
    EXPECT_TRUE(answer.replied);
    EXPECT_NE(answer.error, 0);
  }

  HostTree tree_;
  FuseClient client_{Share(tree_)};
};

// ---- names

TEST_F(FsAttackTest, NamesThatArePathsAreRefused) {
  uint64_t dir = client_.Walk("dir");
  for (const char* name : {"..", ".", "", "/", "../secret", "../../secret", "/etc/passwd", "sub/..",
                           "sub/../../../secret", "./file", "file/"}) {
    SCOPED_TRACE(name);
    EXPECT_EQ(client_.Lookup(dir, name).error, EINVAL);
    EXPECT_EQ(client_.Create(dir, name, O_RDWR).error, EINVAL);
    EXPECT_EQ(client_.Mkdir(dir, name).error, EINVAL);
    fuse_mknod_in node = {};
    node.mode = S_IFREG;
    EXPECT_EQ(client_.Do(FUSE_MKNOD, dir, node, name).error, EINVAL);
    EXPECT_EQ(client_.Do(FUSE_SYMLINK, dir, name, "x").error, EINVAL);
    EXPECT_EQ(client_.Do(FUSE_LINK, dir, fuse_link_in{client_.Walk("dir/file")}, name).error,
              EINVAL);
    EXPECT_EQ(client_.Do(FUSE_UNLINK, dir, name).error, EINVAL);
    EXPECT_EQ(client_.Do(FUSE_RMDIR, dir, name).error, EINVAL);
    EXPECT_EQ(client_.Rename(dir, name, dir, "x").error, EINVAL);
    EXPECT_EQ(client_.Rename(dir, "file", dir, name).error, EINVAL);
  }
  EXPECT_EQ(client_.Lookup(kRootNode, "..").error, EINVAL);
  EXPECT_EQ(tree_.Read("secret"), kSecret);
}

TEST_F(FsAttackTest, NamesThatAreTooLongAreRefused) {
  std::string name(255, 'n');
  EXPECT_EQ(client_.Create(kRootNode, name, O_RDWR).error, 0);
  EXPECT_EQ(client_.Create(kRootNode, name + "n", O_RDWR).error, ENAMETOOLONG);
  EXPECT_EQ(client_.Lookup(kRootNode, std::string(4000, 'n')).error, ENAMETOOLONG);
}

TEST_F(FsAttackTest, NamesWithoutAnEndAreRefused) {
  std::vector<uint8_t> name = {'d', 'i', 'r'};
  EXPECT_EQ(client_.Call(FUSE_LOOKUP, kRootNode, name).error, EINVAL);
  EXPECT_EQ(client_.Call(FUSE_LOOKUP, kRootNode, {}).error, EINVAL);
  // The second name of two.
  auto rename = FuseClient::Pack(fuse_rename_in{kRootNode}, "dir");
  rename.push_back('x');
  EXPECT_EQ(client_.Call(FUSE_RENAME, kRootNode, rename).error, EINVAL);
}

// ---- symbolic links

TEST_F(FsAttackTest, LinksOutOfTheShareLeadNowhere) {
  for (const std::string& target :
       {tree_.Path("secret"), std::string("../secret"), std::string("/etc/passwd")}) {
    client_.Do(FUSE_UNLINK, kRootNode, "link");
    uint64_t link = client_.Do(FUSE_SYMLINK, kRootNode, "link", target).As<fuse_entry_out>().nodeid;
    EXPECT_EQ(client_.Open(link, O_RDONLY).error, ELOOP);
    EXPECT_EQ(client_.Open(link, O_WRONLY | O_TRUNC).error, ELOOP);
    EXPECT_EQ(client_.Create(kRootNode, "link", O_RDWR | O_TRUNC).error, ELOOP);
    EXPECT_EQ(client_.Do(FUSE_OPENDIR, link, fuse_open_in{}).error, ENOTDIR);
    fuse_setattr_in in = {};
    in.valid = FATTR_SIZE;
    EXPECT_EQ(client_.SetAttributes(link, in).error, EINVAL);
    in.valid = FATTR_MODE;
    EXPECT_EQ(client_.SetAttributes(link, in).error, EOPNOTSUPP);
  }
  EXPECT_EQ(tree_.Read("secret"), kSecret);
}

TEST_F(FsAttackTest, LinksToFoldersOutsideAreNotEntered) {
  uint64_t link = client_.Do(FUSE_SYMLINK, kRootNode, "link", tree_.Path("outside"))
                      .As<fuse_entry_out>()
                      .nodeid;
  EXPECT_EQ(client_.Lookup(link, "secret").error, ENOTDIR);
  EXPECT_EQ(client_.Create(link, "new", O_RDWR).error, ENOTDIR);
  EXPECT_EQ(client_.Do(FUSE_UNLINK, link, "secret").error, ENOTDIR);
  EXPECT_EQ(client_.Rename(link, "secret", kRootNode, "mine").error, ENOTDIR);
  EXPECT_EQ(client_.Rename(client_.Walk("dir"), "file", link, "new").error, ENOTDIR);
  EXPECT_TRUE(tree_.Exists("outside/secret"));
}

TEST_F(FsAttackTest, ALinkToProcIsALink) {
  uint64_t link = client_.Do(FUSE_SYMLINK, kRootNode, "link", "/proc/self/root/etc/passwd")
                      .As<fuse_entry_out>()
                      .nodeid;
  EXPECT_EQ(client_.Open(link, O_RDONLY).error, ELOOP);
  EXPECT_EQ(client_.Do(FUSE_READLINK, link).text(), "/proc/self/root/etc/passwd");
}

// Attributes of links are not those of what they point to.
TEST_F(FsAttackTest, ExtendedAttributesDoNotFollowLinks) {
  ASSERT_EQ(setxattr(tree_.Path("secret").c_str(), "user.key", "secret", 6, 0), 0);
  uint64_t link =
      client_.Do(FUSE_SYMLINK, kRootNode, "link", tree_.Path("secret")).As<fuse_entry_out>().nodeid;
  EXPECT_EQ(client_.Do(FUSE_GETXATTR, link, fuse_getxattr_in{100, 0}, "user.key").error, ENODATA);
  EXPECT_EQ(client_.Do(FUSE_LISTXATTR, link, fuse_getxattr_in{100, 0}).payload.size(), 0u);
  EXPECT_EQ(client_.Do(FUSE_REMOVEXATTR, link, "user.key").error, EPERM);
  struct {
    uint32_t size = 0;
    uint32_t flags = 0;
  } set;
  EXPECT_EQ(client_.Do(FUSE_SETXATTR, link, set, "user.key").error, EPERM);
}

// The host (or another guest of the same share) puts a link where a folder or file was that the
// guest knows already: what it knew is still what it reaches.
TEST_F(FsAttackTest, AFolderThatBecomesALinkIsNotFollowed) {
  ShareConfig config = Share(tree_);
  config.limits.warm_inodes = 4;
  FuseClient client(config);
  uint64_t dir = client.Walk("dir");
  uint64_t file = client.Walk("dir/file");
  // Enough others that both are without a descriptor.
  for (int i = 0; i < 10; ++i) {
    client.Mkdir(kRootNode, "d" + std::to_string(i));
  }
  tree_.Rename("share/dir", "share/kept");
  std::filesystem::create_directory_symlink(tree_.Path("outside"), tree_.Path("share/dir"));
  tree_.Write("outside/file", kSecret);
  EXPECT_EQ(client.Open(file, O_RDONLY).error, ESTALE);
  EXPECT_EQ(client.Lookup(dir, "secret").error, ESTALE);
  uint64_t link = client.Walk("dir");
  EXPECT_NE(link, dir);
  EXPECT_EQ(client.Lookup(link, "secret").error, ENOTDIR);
}

// A name changes between folder and link all the time, while the guest walks through it.
TEST_F(FsAttackTest, ARaceOfFolderAndLinkIsNeverWon) {
  std::filesystem::create_directory_symlink(tree_.Path("outside"), tree_.Path("share/link"));
  std::atomic<bool> stop = false;
  std::thread host([&] {
    std::string dir = tree_.Path("share/dir");
    std::string link = tree_.Path("share/link");
    while (!stop) {
      (void)renameat2(AT_FDCWD, dir.c_str(), AT_FDCWD, link.c_str(), RENAME_EXCHANGE);
    }
  });
  int folders = 0;
  for (int i = 0; i < 3000; ++i) {
    auto entry = client_.Lookup(kRootNode, "dir").As<fuse_entry_out>();
    Answer secret = client_.Lookup(entry.nodeid, "secret");
    ASSERT_NE(secret.error, 0);
    ASSERT_NE(client_.Create(entry.nodeid, "secret", O_RDONLY | O_EXCL).error, EEXIST);
    client_.Do(FUSE_UNLINK, entry.nodeid, "secret");
    if (S_ISDIR(entry.attr.mode)) ++folders;
    client_.Forget(entry.nodeid, 1);
  }
  stop = true;
  host.join();
  EXPECT_GT(folders, 0);
  EXPECT_EQ(tree_.Read("outside/secret"), kSecret);
}

// ---- moved away by the host

TEST_F(FsAttackTest, AFolderMovedOutOfTheShareIsOutOfReach) {
  uint64_t dir = client_.Walk("dir");
  uint64_t sub = client_.Walk("dir/sub");
  uint64_t file = client_.Walk("dir/file");
  uint64_t listing = client_.Do(FUSE_OPENDIR, dir, fuse_open_in{}).As<fuse_open_out>().fh;
  uint64_t handle = client_.OpenHandle(file, O_RDONLY);
  tree_.Rename("share/dir", "outside/dir");
  tree_.Write("outside/dir/later", kSecret);
  tree_.Write("outside/dir/sub/later", kSecret);

  EXPECT_EQ(client_.Lookup(dir, "later").error, ESTALE);
  EXPECT_EQ(client_.Lookup(sub, "later").error, ESTALE);
  EXPECT_EQ(client_.Create(dir, "new", O_RDWR).error, ESTALE);
  EXPECT_EQ(client_.Mkdir(sub, "new").error, ESTALE);
  EXPECT_EQ(client_.Do(FUSE_UNLINK, dir, "later").error, ESTALE);
  EXPECT_EQ(client_.Rename(dir, "later", kRootNode, "mine").error, ESTALE);
  EXPECT_EQ(client_.Do(FUSE_LINK, kRootNode, fuse_link_in{file}, "mine").error, ESTALE);
  EXPECT_EQ(client_.Open(file, O_RDONLY).error, ESTALE);
  EXPECT_EQ(client_.GetAttributes(file).error, ESTALE);
  fuse_setattr_in set = {};
  set.valid = FATTR_MODE;
  EXPECT_EQ(client_.SetAttributes(file, set).error, ESTALE);
  EXPECT_EQ(client_.Do(FUSE_STATFS, dir).error, ESTALE);
  fuse_read_in read = {};
  read.fh = listing;
  read.size = 4096;
  EXPECT_EQ(client_.Do(FUSE_READDIR, dir, read).error, ESTALE);
  // What was open is like any open file: the content it had permission for.
  EXPECT_EQ(client_.Read(file, handle, 0, 100).text(), "inside");
  // Back again, it is what it was.
  tree_.Rename("outside/dir", "share/back");
  EXPECT_EQ(client_.Lookup(dir, "file").As<fuse_entry_out>().nodeid, file);
}

TEST_F(FsAttackTest, AFolderWhoseNameOnlyBeginsLikeTheShareIsOutside) {
  uint64_t dir = client_.Walk("dir");
  tree_.Mkdir("share-too");
  tree_.Rename("share/dir", "share-too/dir");
  EXPECT_EQ(client_.Lookup(dir, "file").error, ESTALE);
}

TEST_F(FsAttackTest, TheShareItselfMayBeMoved) {
  uint64_t dir = client_.Walk("dir");
  tree_.Rename("share", "elsewhere");
  EXPECT_EQ(client_.Lookup(dir, "file").error, 0);
  // What now lies where it was is outside.
  tree_.Mkdir("share");
  tree_.Rename("elsewhere/dir", "share/dir");
  EXPECT_EQ(client_.Lookup(dir, "file").error, ESTALE);
}

// The host moves folders in and out while the guest renames within them and goes through "..".
TEST_F(FsAttackTest, RenamesUnderWayNeverLeadOutside) {
  std::atomic<bool> stop = false;
  std::thread host([&] {
    std::error_code ignored;
    while (!stop) {
      std::filesystem::rename(tree_.Path("share/dir"), tree_.Path("outside/dir"), ignored);
      std::filesystem::rename(tree_.Path("outside/dir"), tree_.Path("share/dir"), ignored);
    }
  });
  int reached = 0;
  for (int i = 0; i < 3000; ++i) {
    uint64_t dir = client_.Lookup(kRootNode, "dir").As<fuse_entry_out>().nodeid;
    uint64_t sub = client_.Lookup(dir, "sub").As<fuse_entry_out>().nodeid;
    ASSERT_NE(client_.Lookup(sub, "..").error, 0);
    ASSERT_NE(client_.Lookup(dir, "secret").error, 0);
    if (client_.Rename(dir, "file", sub, "file").error == 0) ++reached;
    client_.Rename(sub, "file", dir, "file");
    if (dir != 0) client_.Forget(dir, 1);
    if (sub != 0) client_.Forget(sub, 1);
  }
  stop = true;
  host.join();
  EXPECT_GT(reached, 0);
  EXPECT_EQ(tree_.Read("outside/secret"), kSecret);
}

// ---- hard links

TEST_F(FsAttackTest, HardLinksAreOfFilesOfThisShareOnly) {
  // Nodes are numbers of this session: there is none for what was not looked up in it.
  for (uint64_t node : {0ull, 2ull + 1000, ~0ull}) {
    EXPECT_EQ(client_.Do(FUSE_LINK, kRootNode, fuse_link_in{node}, "mine").error, ESTALE);
  }
  uint64_t link =
      client_.Do(FUSE_SYMLINK, kRootNode, "link", tree_.Path("secret")).As<fuse_entry_out>().nodeid;
  // A link's other name is a link, not another name of what it points to.
  auto entry = client_.Do(FUSE_LINK, kRootNode, fuse_link_in{link}, "mine").As<fuse_entry_out>();
  EXPECT_TRUE(S_ISLNK(entry.attr.mode));
  EXPECT_FALSE(tree_.Exists("mine"));
  struct stat secret;
  ASSERT_EQ(stat(tree_.Path("secret").c_str(), &secret), 0);
  EXPECT_EQ(secret.st_nlink, 1u);
}

// ---- device nodes and the like

TEST_F(FsAttackTest, DeviceNodesAreNotMade) {
  for (mode_t type : {S_IFCHR, S_IFBLK, S_IFSOCK, S_IFDIR, S_IFLNK}) {
    fuse_mknod_in in = {};
    in.mode = type | 0666;
    in.rdev = static_cast<uint32_t>(makedev(1, 1));
    EXPECT_EQ(client_.Do(FUSE_MKNOD, kRootNode, in, "node").error, EPERM);
  }
  EXPECT_EQ(client_.Rename(kRootNode, "dir", kRootNode, "node", RENAME_WHITEOUT).error, EINVAL);
  EXPECT_FALSE(tree_.Exists("share/node"));
}

// /dev itself as a share: it has device nodes without this test having to be able to make some.
TEST(FsAttackDevices, DeviceNodesOfTheHostAreNotOpenedNorLinked) {
  HostTree tree;
  ShareConfig config = Share(tree);
  config.directory = "/dev";
  FuseClient client(config);
  auto entry = client.Lookup(kRootNode, "null").As<fuse_entry_out>();
  ASSERT_TRUE(S_ISCHR(entry.attr.mode));
  EXPECT_EQ(entry.attr.rdev, 0u);
  EXPECT_EQ(client.Open(entry.nodeid, O_RDONLY).error, ENXIO);
  EXPECT_EQ(client.Create(kRootNode, "null", O_RDWR).error, ENXIO);
  EXPECT_EQ(client.Do(FUSE_LINK, kRootNode, fuse_link_in{entry.nodeid}, "null2").error, EPERM);
  fuse_setattr_in in = {};
  in.valid = FATTR_SIZE;
  EXPECT_EQ(client.SetAttributes(entry.nodeid, in).error, EINVAL);
}

// Opening a FIFO that nobody writes to would stop the event loop for ever.
TEST_F(FsAttackTest, FifosOfTheHostAreNotOpened) {
  ASSERT_EQ(mkfifo(tree_.Path("share/fifo").c_str(), 0666), 0);
  uint64_t fifo = client_.Walk("fifo");
  EXPECT_EQ(client_.Open(fifo, O_RDONLY).error, ENXIO);
  EXPECT_EQ(client_.Open(fifo, O_WRONLY).error, ENXIO);
  EXPECT_EQ(client_.Create(kRootNode, "fifo", O_RDWR).error, ENXIO);
}

// ---- privileges

TEST_F(FsAttackTest, SetUserIdBitsCannotBeSet) {
  Answer made = client_.Create(kRootNode, "program", O_RDWR, 06755);
  EXPECT_EQ(tree_.Mode("share/program"), 0755u);
  fuse_setattr_in in = {};
  in.valid = FATTR_MODE;
  in.mode = 07755;
  EXPECT_EQ(client_.SetAttributes(made.As<fuse_entry_out>().nodeid, in).error, 0);
  EXPECT_EQ(tree_.Mode("share/program"), 01755u);
  client_.Mkdir(kRootNode, "folder", 06777);
  EXPECT_EQ(tree_.Mode("share/folder") & 06000, 0u);
  fuse_mknod_in node = {};
  node.mode = S_IFREG | 06755;
  client_.Do(FUSE_MKNOD, kRootNode, node, "other");
  EXPECT_EQ(tree_.Mode("share/other"), 0755u);
}

TEST_F(FsAttackTest, WhoeverChangesAProgramTakesItsPrivilegesAway) {
  uint64_t node = client_.Walk("dir/file");
  uint64_t handle = client_.OpenHandle(node, O_RDWR);
  auto privileged = [&] { tree_.Chmod("share/dir/file", 06755); };
  privileged();
  client_.Write(node, handle, 0, "x");
  EXPECT_EQ(tree_.Mode("share/dir/file"), 0755u);
  privileged();
  fuse_setattr_in in = {};
  in.valid = FATTR_SIZE;
  EXPECT_EQ(client_.SetAttributes(node, in).error, 0);
  EXPECT_EQ(tree_.Mode("share/dir/file"), 0755u);
  privileged();
  ASSERT_NE(client_.OpenHandle(node, O_WRONLY | O_TRUNC), 0u);
  EXPECT_EQ(tree_.Mode("share/dir/file"), 0755u);
  privileged();
  fuse_fallocate_in allocate = {};
  allocate.fh = handle;
  allocate.length = 4096;
  EXPECT_EQ(client_.Do(FUSE_FALLOCATE, node, allocate).error, 0);
  EXPECT_EQ(tree_.Mode("share/dir/file"), 0755u);
  privileged();
  fuse_copy_file_range_in copy = {};
  copy.fh_in = copy.fh_out = handle;
  copy.off_out = 8192;
  copy.len = 1;
  EXPECT_EQ(client_.Do(FUSE_COPY_FILE_RANGE, node, copy).As<fuse_write_out>().size, 1u);
  EXPECT_EQ(tree_.Mode("share/dir/file"), 0755u);
}

TEST_F(FsAttackTest, FilesAreNotGivenAway) {
  uint64_t node = client_.Walk("dir/file");
  fuse_setattr_in in = {};
  in.valid = FATTR_UID | FATTR_GID;
  in.uid = in.gid = 1000;  // whose it is already
  EXPECT_EQ(client_.SetAttributes(node, in).error, 0);
  in.uid = 0;
  EXPECT_EQ(client_.SetAttributes(node, in).error, EPERM);
  in.valid = FATTR_GID;
  in.gid = 5;
  EXPECT_EQ(client_.SetAttributes(node, in).error, EPERM);
}

// With a root VMM files are accessed as the owner of the share, without root's power.
TEST(FsIdentity, FilesAreTheMappedUsersAndOthersAreNobodys) {
  constexpr uint32_t kUser = 4321;
  HostTree tree;
  tree.Write("share/roots", kSecret);
  tree.Chmod("share/roots", 0600);
  ShareConfig config = Share(tree);
  config.host_uid = config.host_gid = kUser;
  config.guest_uid = config.guest_gid = 7;
  auto loop = vmm::EventLoop::Create().value();
  if (geteuid() != 0) {
    EXPECT_FALSE(FsDevice::Create(config, &loop).ok());
    return;
  }
  tree.Chmod("share", 0777);
  FuseClient client(config);
  auto made = client.Create(kRootNode, "mine", O_RDWR).As<fuse_entry_out>();
  EXPECT_EQ(made.attr.uid, 7u);
  EXPECT_EQ(made.attr.gid, 7u);
  struct stat stat;
  ASSERT_EQ(lstat(tree.Path("share/mine").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_uid, kUser);
  EXPECT_EQ(stat.st_gid, kUser);

  auto roots = client.Lookup(kRootNode, "roots").As<fuse_entry_out>();
  EXPECT_EQ(roots.attr.uid, 65534u);
  EXPECT_EQ(roots.attr.gid, 65534u);
  EXPECT_EQ(client.Open(roots.nodeid, O_RDONLY).error, EACCES);
  fuse_setattr_in in = {};
  in.valid = FATTR_MODE;
  in.mode = 0666;
  EXPECT_EQ(client.SetAttributes(roots.nodeid, in).error, EPERM);
  in.valid = FATTR_UID;
  in.uid = 7;
  EXPECT_EQ(client.SetAttributes(roots.nodeid, in).error, EPERM);
  // The process is as it was.
  EXPECT_EQ(geteuid(), 0u);
  tree.Write("root-again", "");
  ASSERT_EQ(lstat(tree.Path("root-again").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_uid, 0u);
  EXPECT_EQ(tree.Read("share/roots"), kSecret);
}

TEST(FsIdentity, TheOwnerOfTheShareIsTheDefault) {
  HostTree tree;
  bool root = geteuid() == 0;
  ASSERT_TRUE(!root || chown(tree.share().c_str(), 4321, 4322) == 0);
  FuseClient client(Share(tree));
  ASSERT_EQ(client.Create(kRootNode, "mine", O_RDWR).error, 0);
  struct stat stat;
  ASSERT_EQ(lstat(tree.Path("share/mine").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_uid, root ? 4321 : geteuid());
  EXPECT_EQ(stat.st_gid, root ? 4322 : getegid());
}

// ---- lengths that lie

TEST_F(FsAttackTest, AHeaderWithAnotherLengthIsNotAnswered) {
  for (int32_t off : {-40, -1, 1, 4096, INT32_MAX}) {
    auto bytes = FuseClient::Request(FUSE_GETATTR, kRootNode, FuseClient::Pack(fuse_getattr_in{}));
    fuse_in_header header;
    memcpy(&header, bytes.data(), sizeof header);
    header.len += static_cast<uint32_t>(off);
    memcpy(bytes.data(), &header, sizeof header);
    client_.driver().AddRequest(kRequestQueue, bytes, {256}, nullptr);
    client_.driver().Kick(kRequestQueue);
    EXPECT_EQ(client_.driver().WaitUsed(kRequestQueue)->written, 0u);
  }
  EXPECT_EQ(client_.Metric("malformed"), 5u);
  EXPECT_EQ(client_.GetAttributes(kRootNode).error, 0);
}

TEST_F(FsAttackTest, ArgumentsThatAreMissingAreErrors) {
  for (uint32_t opcode = 1; opcode <= FUSE_TMPFILE; ++opcode) {
    if (opcode == FUSE_DESTROY || opcode == FUSE_STATFS) continue;  // have none
    bool silent = opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
    for (size_t size : {0u, 1u, 3u}) {
      Answer answer = client_.Call(opcode, kRootNode, std::vector<uint8_t>(size, 0xff));
      EXPECT_EQ(answer.replied, !silent) << opcode;
      EXPECT_EQ(answer.error != 0, !silent) << opcode << " with " << size;
    }
  }
}

TEST_F(FsAttackTest, RepliesWithoutRoomAreErrorsBeforeAnythingIsDone) {
  for (uint32_t room = 0; room < sizeof(fuse_entry_out); room += 8) {
    EXPECT_EQ(
        client_.Call(FUSE_MKDIR, kRootNode, FuseClient::Pack(fuse_mkdir_in{0755, 0}, "new"), room)
            .error,
        EINVAL);
    EXPECT_EQ(client_.Call(FUSE_LOOKUP, kRootNode, FuseClient::Pack("dir"), room).error, EINVAL);
  }
  EXPECT_FALSE(tree_.Exists("share/new"));
  EXPECT_EQ(client_.Metric("inodes"), 1u);
  // No room even for the header.
  client_.driver().AddRequest(
      kRequestQueue,
      FuseClient::Request(FUSE_GETATTR, kRootNode, FuseClient::Pack(fuse_getattr_in{})), {15},
      nullptr);
  client_.driver().Kick(kRequestQueue);
  EXPECT_EQ(client_.driver().WaitUsed(kRequestQueue)->written, 0u);
}

TEST_F(FsAttackTest, AWriteOfMoreThanItBringsWritesNothing) {
  uint64_t node = client_.Walk("dir/file");
  fuse_write_in in = {};
  in.fh = client_.OpenHandle(node, O_WRONLY);
  for (uint32_t size : {4u, 4096u, kMaxTransfer, kMaxTransfer + 1, ~0u}) {
    in.size = size;
    auto arguments = FuseClient::Pack(in);
    arguments.insert(arguments.end(), 3, 'x');
    EXPECT_EQ(client_.Call(FUSE_WRITE, node, arguments).error, EINVAL) << size;
  }
  in.size = 1;
  in.offset = ~0ull;
  EXPECT_EQ(client_.Do(FUSE_WRITE, node, in, "x").error, EINVAL);
  EXPECT_EQ(tree_.Read("share/dir/file"), "inside");
}

TEST_F(FsAttackTest, AReadFillsNoMoreThanTheRoomThereIs) {
  uint64_t node = client_.Walk("dir/file");
  fuse_read_in in = {};
  in.fh = client_.OpenHandle(node, O_RDONLY);
  in.size = ~0u;
  EXPECT_EQ(client_.Call(FUSE_READ, node, FuseClient::Pack(in), 3).text(), "ins");
  EXPECT_EQ(client_.Call(FUSE_READ, node, FuseClient::Pack(in), 0).payload.size(), 0u);
  in.offset = ~0ull;
  EXPECT_EQ(client_.Call(FUSE_READ, node, FuseClient::Pack(in), 3).error, EINVAL);
  uint64_t handle = client_.Do(FUSE_OPENDIR, kRootNode, fuse_open_in{}).As<fuse_open_out>().fh;
  in = {};
  in.fh = handle;
  in.size = ~0u;
  EXPECT_EQ(client_.Call(FUSE_READDIR, kRootNode, FuseClient::Pack(in), 20).payload.size(), 0u);
  EXPECT_EQ(client_.Call(FUSE_READDIRPLUS, kRootNode, FuseClient::Pack(in), 150).payload.size(),
            0u);
  EXPECT_EQ(client_.Metric("inodes"), 3u);  // root, dir, file: none by the entries that did not fit
}

TEST_F(FsAttackTest, ABatchOfMoreThanItBringsForgetsWhatItBrings) {
  uint64_t node = client_.Walk("dir");
  Answer answer =
      client_.Call(FUSE_BATCH_FORGET, 0,
                   FuseClient::Pack(fuse_batch_forget_in{~0u, 0}, fuse_forget_one{node, ~0ull}), 0,
                   kHighPriorityQueue);
  EXPECT_FALSE(answer.replied);
  EXPECT_EQ(client_.GetAttributes(node).error, ESTALE);
}

TEST_F(FsAttackTest, AnAttributeOfMoreThanItBringsIsNotSet) {
  uint64_t node = client_.Walk("dir/file");
  struct {
    uint32_t size;
    uint32_t flags;
  } in = {100, 0};
  EXPECT_EQ(client_.Do(FUSE_SETXATTR, node, in, "user.x", "short").error, EINVAL);
  in.size = 65537;
  EXPECT_EQ(client_.Do(FUSE_SETXATTR, node, in, "user.x").error, E2BIG);
  EXPECT_EQ(client_.Do(FUSE_GETXATTR, node, fuse_getxattr_in{~0u, 0}, "user.x").error, ENODATA);
}

TEST_F(FsAttackTest, HandlesOfTheOtherKindAreNone) {
  uint64_t file = client_.Walk("dir/file");
  uint64_t handle = client_.OpenHandle(file, O_RDWR);
  uint64_t listing = client_.Do(FUSE_OPENDIR, kRootNode, fuse_open_in{}).As<fuse_open_out>().fh;
  EXPECT_EQ(client_.Read(file, listing, 0, 100).error, EBADF);
  fuse_read_in in = {};
  in.fh = handle;
  in.size = 100;
  EXPECT_EQ(client_.Do(FUSE_READDIR, file, in).error, EBADF);
  fuse_release_in release = {};
  release.fh = handle;
  EXPECT_EQ(client_.Do(FUSE_RELEASEDIR, file, release).error, EBADF);
}

}  // namespace
}  // namespace cube::devices::fs
