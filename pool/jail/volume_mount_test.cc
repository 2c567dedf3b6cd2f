// Needs root: mounts with users of their own.
#include "pool/jail/volume_mount.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "devices/fs/testing/fuse_client.h"

namespace cube::pool {
namespace {

using ::cube::devices::fs::kRootNode;
using ::cube::devices::fs::ShareConfig;
using ::cube::devices::fs::testing::FuseClient;
using ::cube::devices::fs::testing::HostTree;

constexpr uid_t kOwner = 1000, kOne = 1900000001, kOther = 1900000002;

class VolumeMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_FAIL() << "this test has to be run as root";
    ASSERT_EQ(chown(tree_.share().c_str(), kOwner, kOwner), 0);
    tree_.Write("secret", "not for the guest");
  }
  struct stat Stat(const std::string& path) const {
    struct stat info = {};
    EXPECT_EQ(lstat(tree_.Path(path).c_str(), &info), 0) << path;
    return info;
  }
  // What `act` returns as that user, who can do no more than that.
  static int As(uid_t user, const std::function<int()>& act) {
    pid_t child = fork();
    if (child == 0) {
      umask(0);
      if (setgroups(0, nullptr) < 0 || setresgid(user, user, user) < 0 ||
          setresuid(user, user, user) < 0) {
        _exit(255);
      }
      _exit(act());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // 0 or an errno value.
  static int Touch(int folder, const char* name, int flags, mode_t mode = 0600) {
    UniqueFd fd(openat(folder, name, flags | O_CLOEXEC, mode));
    return fd.valid() ? 0 : errno;
  }

  HostTree tree_;
};

TEST_F(VolumeMountTest, WhoeverWritesItIsTheOwners) {
  UniqueFd one = MountVolume(tree_.share(), kOne).value();
  UniqueFd other = MountVolume(tree_.share(), kOther).value();
  EXPECT_EQ(As(kOne, [&] { return Touch(one.get(), "a", O_WRONLY | O_CREAT); }), 0);
  EXPECT_EQ(Stat("share/a").st_uid, kOwner);
  EXPECT_EQ(Stat("share/a").st_gid, kOwner);
  EXPECT_EQ(As(kOther, [&] { return Touch(other.get(), "a", O_RDWR); }), 0);
  EXPECT_EQ(As(kOther,
               [&] {
                 struct stat info;
                 if (fstatat(other.get(), "a", &info, 0) < 0) return 1;
                 return info.st_uid == kOther && info.st_gid == kOther ? 0 : 2;
               }),
            0);
}

TEST_F(VolumeMountTest, ItIsThatUsersAlone) {
  UniqueFd mount = MountVolume(tree_.share(), kOne).value();
  EXPECT_EQ(As(kOther, [&] { return Touch(mount.get(), "a", O_WRONLY | O_CREAT); }), EOVERFLOW);
  EXPECT_EQ(As(kOwner, [&] { return Touch(mount.get(), "a", O_WRONLY | O_CREAT); }), EOVERFLOW);
  // Files of others than the owner are nobody's.
  tree_.Write("share/roots", "x");
  tree_.Chmod("share/roots", 0604);
  EXPECT_EQ(As(kOne, [&] { return Touch(mount.get(), "roots", O_RDONLY); }), 0);
  EXPECT_EQ(As(kOne, [&] { return Touch(mount.get(), "roots", O_WRONLY); }), EACCES);
}

TEST_F(VolumeMountTest, NoLinkAndNothingAboveItIsReached) {
  UniqueFd mount = MountVolume(tree_.share(), kOne).value();
  ASSERT_EQ(symlink("/etc/passwd", tree_.Path("share/link").c_str()), 0);
  ASSERT_EQ(symlink("../secret", tree_.Path("share/up").c_str()), 0);
  EXPECT_EQ(Touch(mount.get(), "link", O_RDONLY), ELOOP);
  EXPECT_EQ(Touch(mount.get(), "up", O_RDONLY), ELOOP);
  // Above the root of a mount that is attached nowhere is the root.
  EXPECT_EQ(Touch(mount.get(), "../secret", O_RDONLY), ENOENT);
  EXPECT_EQ(Touch(mount.get(), "../../../../etc/passwd", O_RDONLY), ENOENT);
}

TEST_F(VolumeMountTest, AFolderThatIsALinkIsRefused) {
  ASSERT_EQ(symlink(tree_.share().c_str(), tree_.Path("link").c_str()), 0);
  EXPECT_FALSE(MountVolume(tree_.Path("link"), kOne).ok());
  EXPECT_FALSE(MountVolume(tree_.Path("link/x"), kOne).ok());
  EXPECT_FALSE(MountVolume(tree_.Path("secret"), kOne).ok());
}

// /proc has no idmapped mounts.
TEST_F(VolumeMountTest, AFileSystemThatCannotSaysSo) {
  auto mount = MountVolume("/proc/sys", kOne);
  ASSERT_FALSE(mount.ok());
  EXPECT_NE(mount.error().message().find("without idmapped mounts"), std::string::npos)
      << mount.error().message();
}

// ---- what a device makes of it

class VolumeDeviceTest : public VolumeMountTest {
 protected:
  static ShareConfig Spare() {
    ShareConfig config;
    config.tag = "volume0";
    return config;
  }
  void Plug() {
    Status plugged = client_.device().Plug(MountVolume(tree_.share(), kOne).value());
    ASSERT_TRUE(plugged.ok()) << plugged.error().message();
    ASSERT_EQ(client_.Init().error, 0);
  }

  FuseClient client_{Spare(), /*init=*/false};
};

TEST_F(VolumeDeviceTest, TheGuestsFilesAreTheOwners) {
  Plug();
  auto made = client_.Create(kRootNode, "file", O_RDWR, 0640);
  ASSERT_EQ(made.error, 0);
  EXPECT_EQ(made.As<fuse_entry_out>().attr.uid, 1000u);
  EXPECT_EQ(Stat("share/file").st_uid, kOwner);
  ASSERT_EQ(client_.Mkdir(kRootNode, "dir", 0755).error, 0);
  ASSERT_EQ(client_.Create(client_.Walk("dir"), "inner", O_RDWR).error, 0);
  EXPECT_EQ(Stat("share/dir/inner").st_uid, kOwner);
  EXPECT_NE(client_.Walk("dir/inner"), 0u);
}

TEST_F(VolumeDeviceTest, WhatIsMovedOutIsGoneForTheGuest) {
  tree_.Mkdir("share/dir/sub");
  tree_.Write("share/dir/file", "x");
  Plug();
  uint64_t dir = client_.Walk("dir"), sub = client_.Walk("dir/sub"),
           file = client_.Walk("dir/file");
  ASSERT_NE(file, 0u);
  tree_.Rename("share/dir", "moved");
  tree_.Write("moved/secret", "not for the guest");
  for (uint64_t node : {dir, sub, file}) EXPECT_EQ(client_.GetAttributes(node).error, ESTALE);
  EXPECT_EQ(client_.Lookup(dir, "secret").error, ESTALE);
  EXPECT_EQ(client_.Create(sub, "x", O_RDWR).error, ESTALE);
}

TEST_F(VolumeDeviceTest, LinksThatOthersPlantAreOnlyLinks) {
  ASSERT_EQ(symlink("/etc/passwd", tree_.Path("share/link").c_str()), 0);
  ASSERT_EQ(symlink("/etc", tree_.Path("share/folder").c_str()), 0);
  Plug();
  uint64_t link = client_.Walk("link"), folder = client_.Walk("folder");
  EXPECT_EQ(client_.Do(FUSE_READLINK, link).text(), "/etc/passwd");
  EXPECT_EQ(client_.Open(link, O_RDONLY).error, ELOOP);
  EXPECT_EQ(client_.Lookup(folder, "passwd").error, ENOTDIR);
  EXPECT_EQ(client_.Create(folder, "x", O_RDWR).error, ENOTDIR);
  EXPECT_EQ(client_.Lookup(kRootNode, "..").error, EINVAL);
}

}  // namespace
}  // namespace cube::pool
