// A client made of MQTT.js, driven by the interoperability tests. The arguments are those of paho_client.py.
const mqtt = require("mqtt");

const [mode, host, port, version, qosText, topic, countText, id, cleanText] = process.argv.slice(2);
const qos = Number(qosText);
const count = mode === "join" ? 0 : Number(countText);
const clean = mode === "pub" || cleanText === "1";

const options = {
  host,
  port: Number(port),
  protocol: "mqtt",
  clientId: mode === "pub" ? "mqttjs-pub" : id,
  clean,
  reconnectPeriod: 0,
  protocolVersion: { "3.1": 3, "3.1.1": 4, 5: 5 }[version],
};
if (version === "3.1") options.protocolId = "MQIsdp";
if (version === "5" && !clean) options.properties = { sessionExpiryInterval: 3600 };

function fail(error) {
  console.error(error);
  process.exit(1);
}

setTimeout(() => fail("out of patience"), 20000).unref();

const client = mqtt.connect(options);
client.on("error", fail);

function publish(number) {
  if (number === count) return client.end();
  client.publish(topic, String(number), { qos }, (error) => (error ? fail(error) : publish(number + 1)));
}

let got = 0;
client.on("message", (_topic, payload, packet) => {
  console.log(`${packet.qos} ${Number(packet.retain)} ${payload}`);
  got += 1;
  // The acknowledgement is sent after this; `end` waits for it.
  if (got === count) setImmediate(() => client.end());
});

client.on("connect", () => {
  if (mode === "pub") return publish(0);
  client.subscribe(topic, { qos }, (error) => {
    // A session that went on may have been complete, and left, before the SUBACK.
    if (error && !(count > 0 && got >= count)) return fail(error);
    console.log("ready");
    if (count === 0) client.end();
  });
});
