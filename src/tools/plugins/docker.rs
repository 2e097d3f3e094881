//! The command line that runs an image (contract engine 8.5, 8.6). Pure.

use crate::config::{PartOf, PluginConfig, ToolServerConfig};

/// What beside the plugin's own settings goes into the line.
#[derive(Default)]
pub(super) struct Extra {
    pub(super) tmpfs: Option<&'static str>,
    pub(super) shm_size: Option<&'static str>,
    /// `-v` with what stands here; it may hold blanks.
    pub(super) mount: Option<String>,
}

/// The tool server that a plugin is. A program is itself; an image is run by docker. Values of variables are put in when
/// it is started.
pub(super) fn server(plugin: &PluginConfig, extra: &Extra) -> ToolServerConfig {
    let base = ToolServerConfig { env: plugin.env.clone(), untrusted: plugin.untrusted, ..ToolServerConfig::default() };
    if !plugin.is_docker() {
        return ToolServerConfig {
            command: plugin.command.clone(),
            args: plugin.args.clone(),
            part_of: PartOf::Program,
            ..base
        };
    }
    let network = if plugin.network.is_empty() { "none" } else { &plugin.network };
    let mut args: Vec<String> = ["run", "--rm", "-i", "--network", network].map(str::to_owned).to_vec();
    option(&mut args, "--memory", &plugin.memory_limit);
    option(&mut args, "--cpus", &plugin.cpu_limit);
    args.extend(["--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges"].map(str::to_owned));
    option(&mut args, "--tmpfs", extra.tmpfs.unwrap_or_default());
    option(&mut args, "--shm-size", extra.shm_size.unwrap_or_default());
    for volume in plugin.volumes.iter().chain(&extra.mount) {
        option(&mut args, "-v", volume);
    }
    for name in plugin.env.keys() {
        option(&mut args, "-e", name);
    }
    args.push(plugin.image.clone());
    if !plugin.command.is_empty() {
        args.push(plugin.command.clone());
    }
    args.extend(plugin.args.iter().cloned());
    ToolServerConfig { command: "docker".to_owned(), args, part_of: PartOf::Image, ..base }
}

/// An option with its value, unless that is empty.
fn option(args: &mut Vec<String>, name: &str, value: &str) {
    if !value.is_empty() {
        args.extend([name.to_owned(), value.to_owned()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_line_is_that_of_the_contract() {
        let texts = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut plugin = PluginConfig { kind: "docker".into(), image: "img".into(), ..PluginConfig::default() };
        let line = |plugin: &PluginConfig, extra: &Extra| server(plugin, extra).args;
        let least = "run --rm -i --network none --cap-drop ALL --read-only --security-opt no-new-privileges img";
        assert_eq!(line(&plugin, &Extra::default()), texts(least));
        plugin.memory_limit = "64m".into();
        plugin.cpu_limit = "0.5".into();
        plugin.network = "lan".into();
        plugin.volumes = texts("/a:/b");
        plugin.command = "serve".into();
        plugin.args = texts("-x y");
        plugin.env = BTreeMap::from([("K".into(), "V".into())]);
        let extra = Extra { tmpfs: Some("/tmp:size=64m"), shm_size: Some("64m"), mount: Some("/p q:/r".into()) };
        let mut most = texts(
            "run --rm -i --network lan --memory 64m --cpus 0.5 --cap-drop ALL --read-only --security-opt \
             no-new-privileges --tmpfs /tmp:size=64m --shm-size 64m -v /a:/b -v MOUNT -e K img serve -x y",
        );
        most.iter_mut().filter(|word| *word == "MOUNT").for_each(|word| "/p q:/r".clone_into(word));
        assert_eq!(line(&plugin, &extra), most);
    }
}
