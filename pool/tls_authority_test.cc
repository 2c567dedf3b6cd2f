#include "pool/tls_authority.h"

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using Certificate = std::unique_ptr<X509, FreeCertificate>;

class TlsAuthorityTest : public ::testing::Test {
 protected:
  TlsAuthorityTest() : folder_(fs::path(::testing::TempDir()) / "tls") { fs::remove_all(folder_); }

  static Certificate Read(const std::string& path) {
    FILE* file = fopen(path.c_str(), "re");
    EXPECT_NE(file, nullptr) << path;
    Certificate certificate(PEM_read_X509(file, nullptr, nullptr, nullptr));
    fclose(file);
    return certificate;
  }
  // Whether the authority vouches for the server, under that name.
  static bool IsTrusted(const TlsFiles& files, const char* name) {
    Certificate authority = Read(files.authority), server = Read(files.certificate);
    X509_STORE* store = X509_STORE_new();
    X509_STORE_add_cert(store, authority.get());
    X509_STORE_CTX* context = X509_STORE_CTX_new();
    X509_STORE_CTX_init(context, store, server.get(), nullptr);
    X509_VERIFY_PARAM* wanted = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_purpose(wanted, X509_PURPOSE_SSL_SERVER);
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, name) != 1) {
      X509_VERIFY_PARAM_set1_host(wanted, name, 0);
    }
    bool good = X509_verify_cert(context) == 1;
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return good;
  }
  static mode_t ModeOf(const std::string& path) {
    struct stat about = {};
    stat(path.c_str(), &about);
    return about.st_mode & 0777;
  }

  fs::path folder_;
};

TEST_F(TlsAuthorityTest, ItVouchesForNamesAndAddresses) {
  auto files = MakeTlsFiles(folder_.string(), "sandbox.test", {"10.1.2.3", "other.test"});
  ASSERT_TRUE(files.ok()) << files.error().message();
  for (const char* name : {"localhost", "127.0.0.1", "::1", "sandbox.test", "api.sandbox.test",
                           "8000-abc.sandbox.test", "10.1.2.3", "other.test"}) {
    EXPECT_TRUE(IsTrusted(*files, name)) << name;
  }
  for (const char* name : {"a.b.sandbox.test", "test", "10.1.2.4", "a.other.test", "127.0.0.2"}) {
    EXPECT_FALSE(IsTrusted(*files, name)) << name;
  }
  EXPECT_EQ(ModeOf(files->key), 0600U);
  EXPECT_EQ(ModeOf((folder_ / "ca-key.pem").string()), 0600U);
}

TEST_F(TlsAuthorityTest, TheAuthorityStays) {
  auto first = MakeTlsFiles(folder_.string(), "", {});
  ASSERT_TRUE(first.ok());
  auto authority = ReadSmallFile(first->authority), key = ReadSmallFile(first->key);
  auto second = MakeTlsFiles(folder_.string(), "sandbox.test", {});
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(*ReadSmallFile(second->authority), *authority);
  EXPECT_NE(*ReadSmallFile(second->key), *key);
  EXPECT_TRUE(IsTrusted(*second, "x.sandbox.test"));
}

TEST_F(TlsAuthorityTest, WhatIsWrongIsSaid) {
  for (const char* name : {"", "a b", "a,DNS:b", "a\nb", ".a", "a.", "a..b", "*.", "**.a", "a*b"}) {
    EXPECT_FALSE(MakeTlsFiles(folder_.string(), "", {name}).ok()) << name;
  }
  EXPECT_FALSE(fs::exists(folder_));
  ASSERT_TRUE(MakeTlsFiles(folder_.string(), "", {}).ok());
  fs::copy_file(folder_ / "key.pem", folder_ / "ca-key.pem", fs::copy_options::overwrite_existing);
  auto other = MakeTlsFiles(folder_.string(), "", {});
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().message().find("is not the key of"), std::string::npos);
  fs::remove(folder_ / "ca-key.pem");
  EXPECT_FALSE(MakeTlsFiles(folder_.string(), "", {}).ok());
  fs::remove_all(folder_);
  EXPECT_FALSE(MakeTlsFiles("/proc/none/tls", "", {}).ok());
}

}  // namespace
}  // namespace cube::pool
