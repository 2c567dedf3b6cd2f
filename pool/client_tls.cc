#include "pool/client_tls.h"

#include <cstdio>

#include "base/json_writer.h"
#include "pool/tls_authority.h"

namespace cube::pool {

void AddTlsCommands(CLI::App* app, TlsWords* words) {
  CLI::App* group = app->add_subcommand("tls", "Certificates of the HTTP endpoint");
  CLI::App* init = group->require_subcommand(1)->add_subcommand(
      "init", "A certification authority of one's own, if there is none, and a certificate by it");
  init->add_option("--domain", words->domain, "it is for that name, and for all beneath it");
  init->add_option("--name", words->names, "it is for that name or address as well")
      ->allow_extra_args(false);
}

Status TlsCommand(const TlsWords& words, const std::string& home, bool as_json) {
  CUBE_ASSIGN(TlsFiles files, MakeTlsFiles(home + "/tls", words.domain, words.names));
  if (as_json) {
    JsonWriter json;
    json.BeginObject().Key("ok").Bool(true).Key("authority").String(files.authority);
    json.Key("certificate").String(files.certificate).Key("key").String(files.key);
    json.Key("until_ms").Int(files.until_ms).Key("names").BeginArray();
    for (const std::string& name : files.names) json.String(name);
    printf("%s\n", json.EndArray().EndObject().text().c_str());
    return OkStatus();
  }
  printf("# What clients have to trust (NODE_EXTRA_CA_CERTS, SSL_CERT_FILE): %s\n",
         files.authority.c_str());
  printf("# Names:");
  for (const std::string& name : files.names) printf(" %s", name.c_str());
  printf("\n[api]\ntls_certificate = \"%s\"\ntls_key = \"%s\"\n", files.certificate.c_str(),
         files.key.c_str());
  return OkStatus();
}

}  // namespace cube::pool
