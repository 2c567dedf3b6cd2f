#include "pool/client_network.h"

#include <boost/json.hpp>

namespace cube::pool {

namespace json = boost::json;

CLI::App* AddNetworkCommands(CLI::App* app, NetworkWords* words) {
  CLI::App* group = app->add_subcommand("net", "The network of sandboxes");
  group->require_subcommand(1);
  group->add_subcommand("list", "All sandboxes that have one, with their traffic");
  group->add_subcommand("stats", "Verdicts, flows and names of the node");
  CLI::App* trace = group->add_subcommand("trace", "Packets that are refused, as it happens");
  trace->add_flag("--all", words->all, "and those that are let through");
  CLI::App* show = group->add_subcommand("show", "One sandbox's");
  CLI::App* policy = group->add_subcommand("policy", "What one may reach from now on");
  policy->add_option("--allow", words->allow, "NETWORK[:PORT[-PORT][/tcp|/udp]], or a name")
      ->allow_extra_args(false);
  policy->add_option("--deny", words->deny, "NETWORK[:PORT[-PORT][/tcp|/udp]]")
      ->allow_extra_args(false);
  policy->add_flag("--no-internet", words->no_internet, "nothing but what is allowed");
  policy->add_option("--bytes", words->bytes, "a second, from it");
  policy->add_option("--packets", words->packets, "a second, from it");
  CLI::App* map = group->add_subcommand("map", "Lead a port of the host to one");
  for (CLI::App* one : {show, policy, map}) {
    one->add_option("id", words->id, "the sandbox's id")->required();
  }
  map->add_option("host-port", words->host_port, "on the host")->required();
  map->add_option("port", words->port, "in the sandbox; not with --remove");
  map->add_option("--protocol", words->protocol, "of them")->check(CLI::IsMember({"tcp", "udp"}));
  map->add_flag("--remove", words->remove, "no longer");
  return group;
}

json::object NetworkRequest(const std::string& action, const NetworkWords& words) {
  json::object request = {{"op", "net." + action}};
  if (action == "trace") request["all"] = words.all;
  if (!words.id.empty()) request["id"] = words.id;
  if (action == "policy") {
    request["allow"] = json::value_from(words.allow);
    request["deny"] = json::value_from(words.deny);
    request["internet"] = !words.no_internet;
    request["bytes_per_second"] = words.bytes;
    request["packets_per_second"] = words.packets;
  }
  if (action == "map") {
    if (words.remove) request["op"] = "net.unmap";
    request["protocol"] = words.protocol;
    request["host_port"] = words.host_port;
    if (!words.remove) request["port"] = words.port;
  }
  return request;
}

}  // namespace cube::pool
