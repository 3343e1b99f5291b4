"""A client made of paho-mqtt, driven by the interoperability tests.

    paho_client.py pub  HOST PORT VERSION QOS TOPIC COUNT            publishes payloads 0, 1, 2 ...
    paho_client.py sub  HOST PORT VERSION QOS TOPIC COUNT ID CLEAN   prints `ready`, then `QOS RETAIN PAYLOAD` for each message, until COUNT
    paho_client.py join HOST PORT VERSION QOS TOPIC COUNT ID CLEAN   subscribes and leaves

CLEAN is 0 or 1; 0 is a session that lasts. VERSION is 3.1, 3.1.1 or 5.
"""

import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PROTOCOLS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}
PATIENCE = 20


def make(version, client_id, clean):
    protocol = PROTOCOLS[version]
    options = {"client_id": client_id, "protocol": protocol}
    if version != "5":
        options["clean_session"] = clean
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **options)
    return mqtt.Client(**options)


def connect(client, host, port, version, clean):
    if version == "5":
        properties = Properties(PacketTypes.CONNECT)
        if not clean:
            properties.SessionExpiryInterval = 3600
        client.connect(host, port, clean_start=clean, properties=properties)
    else:
        client.connect(host, port)


def publish(host, port, version, qos, topic, count):
    client = make(version, "paho-pub", True)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    connect(client, host, port, version, True)
    client.loop_start()
    assert connected.wait(PATIENCE), "no CONNACK"
    for number in range(count):
        info = client.publish(topic, str(number), qos)
        info.wait_for_publish(PATIENCE)
        assert info.is_published(), "no acknowledgement"
    client.disconnect()
    client.loop_stop()


def subscribe(host, port, version, qos, topic, count, client_id, clean):
    client = make(version, client_id, clean)
    subscribed = threading.Event()
    complete = threading.Event()
    got = []

    def on_message(_client, _data, message):
        got.append(message)
        print(message.qos, int(message.retain), message.payload.decode(), flush=True)
        if len(got) >= count:
            complete.set()

    def on_subscribe(*_):
        print("ready", flush=True)
        subscribed.set()

    client.on_connect = lambda *_: client.subscribe(topic, qos)
    client.on_subscribe = on_subscribe
    client.on_message = on_message
    connect(client, host, port, version, clean)
    client.loop_start()
    assert subscribed.wait(PATIENCE), "no SUBACK"
    if count:
        assert complete.wait(PATIENCE), "got only %d messages" % len(got)
    client.disconnect()
    client.loop_stop()


def main():
    mode, host, port, version, qos, topic, count = sys.argv[1:8]
    if mode == "pub":
        publish(host, int(port), version, int(qos), topic, int(count))
        return
    count = 0 if mode == "join" else int(count)
    client_id, clean = sys.argv[8], sys.argv[9] == "1"
    subscribe(host, int(port), version, int(qos), topic, count, client_id, clean)


main()
