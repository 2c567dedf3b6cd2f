#include "pool/tls_authority.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>

#include "base/byte_io.h"
#include "base/unique_fd.h"

namespace cube::pool {
namespace {

constexpr int64_t kDay = 86'400;
constexpr int64_t kAuthorityDays = 3650, kServerDays = 397;
// Clocks of clients may be late.
constexpr int64_t kEarlier = kDay;
constexpr size_t kMaxName = 253;
constexpr int kSerialBytes = 16;

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Memory = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;

// What OpenSSL says about the last thing that it could not do.
Error Failed(const char* doing) {
  char text[256] = "unknown";
  if (unsigned long code = ERR_get_error()) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return Errorf("%s: %s", doing, text);
}

std::string TextOf(BIO* memory) {
  char* bytes = nullptr;
  long size = BIO_get_mem_data(memory, &bytes);
  return std::string(bytes, size > 0 ? static_cast<size_t>(size) : 0);
}

Result<std::string> Pem(X509* certificate) {
  Memory memory(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(memory.get(), certificate) != 1) return Failed("a certificate");
  return TextOf(memory.get());
}

Result<std::string> Pem(EVP_PKEY* key) {
  Memory memory(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PrivateKey(memory.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return Failed("a key");
  }
  return TextOf(memory.get());
}

Status Replace(const std::string& path, const std::string& text, mode_t mode) {
  const std::string unfinished = path + ".new";
  unlink(unfinished.c_str());
  CUBE_ASSIGN(UniqueFd file, OpenFile(unfinished, O_WRONLY | O_CREAT | O_EXCL, mode));
  CUBE_TRY(WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                    unfinished.c_str()));
  if (fsync(file.get()) < 0) return ErrnoError("%s", unfinished.c_str());
  if (rename(unfinished.c_str(), path.c_str()) < 0) return ErrnoError("%s", path.c_str());
  return OkStatus();
}

bool IsAddress(const std::string& name) {
  in6_addr address;
  return inet_pton(AF_INET, name.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, name.c_str(), &address) == 1;
}

// What goes into a certificate goes through OpenSSL's own language, in which a comma is no letter.
bool IsName(const std::string& text) {
  std::string name = text.starts_with("*.") ? text.substr(2) : text;
  return !name.empty() && name.size() <= kMaxName && name[0] != '.' && name.back() != '.' &&
         name.find("..") == std::string::npos &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
         });
}

Status Add(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  Extension extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) {
    return Failed(value.c_str());
  }
  return OkStatus();
}

// One without its extensions and signature.
Result<Certificate> Begin(EVP_PKEY* key, const std::string& name, X509_NAME* issuer, int64_t days) {
  Certificate made(X509_new());
  X509* certificate = made.get();
  unsigned char serial[kSerialBytes];
  if (RAND_bytes(serial, sizeof serial) != 1) return Failed("a serial number");
  serial[0] &= 0x7f;
  std::unique_ptr<BIGNUM, Free<BN_free>> number(BN_bin2bn(serial, sizeof serial, nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate));
  X509_set_version(certificate, X509_VERSION_3);
  time_t now = time(nullptr);
  ASN1_TIME_set(X509_getm_notBefore(certificate), now - kEarlier);
  ASN1_TIME_set(X509_getm_notAfter(certificate), now + days * kDay);
  X509_set_pubkey(certificate, key);
  X509_NAME* subject = X509_get_subject_name(certificate);
  auto text = reinterpret_cast<const unsigned char*>(name.data());
  if (X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, text, static_cast<int>(name.size()),
                                 -1, 0) != 1) {
    return Failed("a name");
  }
  X509_set_issuer_name(certificate, issuer != nullptr ? issuer : subject);
  return made;
}

struct Authority {
  Key key;
  Certificate certificate;
};

// Null if there is none; an error if it is not whole, or is over.
Result<Authority> Load(const std::string& certificate, const std::string& key) {
  Authority authority;
  std::unique_ptr<FILE, Free<fclose>> first(fopen(certificate.c_str(), "re"));
  std::unique_ptr<FILE, Free<fclose>> second(fopen(key.c_str(), "re"));
  if (first == nullptr && second == nullptr) return authority;
  if (first == nullptr || second == nullptr) {
    return Errorf("%s is there, and %s is not: move it away to begin anew",
                  (first != nullptr ? certificate : key).c_str(),
                  (first != nullptr ? key : certificate).c_str());
  }
  authority.certificate.reset(PEM_read_X509(first.get(), nullptr, nullptr, nullptr));
  if (authority.certificate == nullptr) return Failed(certificate.c_str());
  authority.key.reset(PEM_read_PrivateKey(second.get(), nullptr, nullptr, nullptr));
  if (authority.key == nullptr) return Failed(key.c_str());
  if (X509_check_private_key(authority.certificate.get(), authority.key.get()) != 1) {
    ERR_clear_error();
    return Errorf("%s is not the key of %s", key.c_str(), certificate.c_str());
  }
  if (X509_cmp_current_time(X509_get0_notAfter(authority.certificate.get())) <= 0) {
    return Errorf("%s is over: move it and its key away to begin anew", certificate.c_str());
  }
  return authority;
}

Result<Authority> NewAuthority(const std::string& host) {
  Authority made;
  made.key.reset(EVP_EC_gen("P-256"));
  if (made.key == nullptr) return Failed("a key");
  // Two of one name would be mistaken for one another.
  std::string name =
      Format("Cube on %s, %lld", host.c_str(), static_cast<long long>(time(nullptr)));
  CUBE_ASSIGN(made.certificate, Begin(made.key.get(), name.substr(0, 64), nullptr, kAuthorityDays));
  X509* own = made.certificate.get();
  CUBE_TRY(Add(own, own, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  CUBE_TRY(Add(own, own, NID_key_usage, "critical,keyCertSign,cRLSign"));
  CUBE_TRY(Add(own, own, NID_subject_key_identifier, "hash"));
  if (X509_sign(own, made.key.get(), EVP_sha256()) == 0) return Failed("a signature");
  return made;
}

}  // namespace

Result<TlsFiles> MakeTlsFiles(const std::string& folder, const std::string& domain,
                              const std::vector<std::string>& names) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  TlsFiles files;
  files.names = {"localhost", "127.0.0.1", "::1"};
  std::vector<std::string> more = names;
  if (!domain.empty()) more.insert(more.begin(), {domain, "*." + domain});
  if (IsName(host)) more.emplace_back(host);
  for (const std::string& name : more) {
    if (!IsAddress(name) && !IsName(name)) {
      return Errorf("\"%.300s\" is not a name of a host or an address", name.c_str());
    }
    if (std::find(files.names.begin(), files.names.end(), name) == files.names.end()) {
      files.names.push_back(name);
    }
  }
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return Errorf("%s: %s", folder.c_str(), failed.message().c_str());
  files.authority = folder + "/ca.pem";
  files.certificate = folder + "/cert.pem";
  files.key = folder + "/key.pem";
  const std::string authority_key = folder + "/ca-key.pem";
  CUBE_ASSIGN(Authority authority, Load(files.authority, authority_key));
  if (authority.key == nullptr) {
    CUBE_ASSIGN(authority, NewAuthority(host));
    CUBE_ASSIGN(std::string key, Pem(authority.key.get()));
    CUBE_ASSIGN(std::string certificate, Pem(authority.certificate.get()));
    CUBE_TRY(Replace(authority_key, key, 0600));
    CUBE_TRY(Replace(files.authority, certificate, 0644));
  }

  Key key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("a key");
  X509* issuer = authority.certificate.get();
  CUBE_ASSIGN(Certificate made,
              Begin(key.get(), "cubed", X509_get_subject_name(issuer), kServerDays));
  std::string all;
  for (const std::string& name : files.names) {
    all += (all.empty() ? "" : ",") + std::string(IsAddress(name) ? "IP:" : "DNS:") + name;
  }
  X509* own = made.get();
  CUBE_TRY(Add(own, issuer, NID_basic_constraints, "critical,CA:FALSE"));
  CUBE_TRY(Add(own, issuer, NID_key_usage, "critical,digitalSignature"));
  CUBE_TRY(Add(own, issuer, NID_ext_key_usage, "serverAuth"));
  CUBE_TRY(Add(own, issuer, NID_subject_alt_name, all));
  CUBE_TRY(Add(own, issuer, NID_subject_key_identifier, "hash"));
  CUBE_TRY(Add(own, issuer, NID_authority_key_identifier, "keyid"));
  if (X509_sign(own, authority.key.get(), EVP_sha256()) == 0) return Failed("a signature");
  CUBE_ASSIGN(std::string key_text, Pem(key.get()));
  CUBE_ASSIGN(std::string chain, Pem(own));
  CUBE_ASSIGN(std::string above, Pem(issuer));
  CUBE_TRY(Replace(files.key, key_text, 0600));
  CUBE_TRY(Replace(files.certificate, chain + above, 0644));
  files.until_ms = (int64_t{time(nullptr)} + kServerDays * kDay) * 1000;
  return files;
}

}  // namespace cube::pool
