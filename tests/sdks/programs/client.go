// centrifuge-go, told what to do by lines on standard input. Argument: a JSON object with `endpoint`, `codec`, `token`,
// `channel` and `delta`.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

var lock sync.Mutex

func say(event string, more map[string]any) {
	lock.Lock()
	defer lock.Unlock()
	line := map[string]any{"event": event}
	for name, value := range more {
		line[name] = value
	}
	text, _ := json.Marshal(line)
	os.Stdout.Write(append(text, '\n'))
}

func main() {
	var given struct{ Endpoint, Codec, Token, Channel, Delta string }
	if err := json.Unmarshal([]byte(os.Args[1]), &given); err != nil {
		panic(err)
	}
	config := centrifuge.Config{Token: given.Token, MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond}
	make := centrifuge.NewJsonClient
	if given.Codec == "protobuf" {
		make = centrifuge.NewProtobufClient
	}
	client := make(given.Endpoint, config)
	client.OnConnected(func(it centrifuge.ConnectedEvent) { say("connected", map[string]any{"client": it.ClientID}) })
	client.OnConnecting(func(it centrifuge.ConnectingEvent) { say("connecting", map[string]any{"code": it.Code}) })
	client.OnDisconnected(func(it centrifuge.DisconnectedEvent) {
		say("disconnected", map[string]any{"code": it.Code, "reason": it.Reason})
	})
	client.OnError(func(it centrifuge.ErrorEvent) { say("error", map[string]any{"message": it.Error.Error()}) })
	options := centrifuge.SubscriptionConfig{}
	if given.Delta != "" {
		options.Delta = centrifuge.DeltaType(given.Delta)
	}
	room, err := client.NewSubscription(given.Channel, options)
	if err != nil {
		panic(err)
	}
	room.OnSubscribed(func(it centrifuge.SubscribedEvent) {
		say("subscribed", map[string]any{"recovered": it.Recovered, "wasRecovering": it.WasRecovering})
	})
	room.OnPublication(func(it centrifuge.PublicationEvent) {
		say("publication", map[string]any{"data": json.RawMessage(it.Data), "offset": it.Offset})
	})
	room.OnJoin(func(it centrifuge.JoinEvent) { say("join", map[string]any{"client": it.ClientInfo.Client}) })
	room.OnError(func(it centrifuge.SubscriptionErrorEvent) { say("error", map[string]any{"message": it.Error.Error()}) })
	if err := room.Subscribe(); err != nil {
		panic(err)
	}
	if err := client.Connect(); err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command struct {
			Do   string
			Data json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			panic(err)
		}
		result, err := carryOut(client, room, command.Do, command.Data)
		if err != nil {
			say("error", map[string]any{"message": err.Error()})
		} else {
			say(command.Do, map[string]any{"result": result})
		}
	}
}

func carryOut(client *centrifuge.Client, room *centrifuge.Subscription, what string, data json.RawMessage) (any, error) {
	ctx := context.Background()
	switch what {
	case "publish":
		_, err := room.Publish(ctx, data)
		return nil, err
	case "presence":
		found, err := room.Presence(ctx)
		clients := []string{}
		for id := range found.Clients {
			clients = append(clients, id)
		}
		return clients, err
	case "stats":
		found, err := room.PresenceStats(ctx)
		return map[string]any{"numClients": found.NumClients, "numUsers": found.NumUsers}, err
	case "history":
		found, err := room.History(ctx, centrifuge.WithHistoryLimit(100))
		values := []json.RawMessage{}
		for _, each := range found.Publications {
			values = append(values, each.Data)
		}
		return values, err
	default:
		found, err := client.RPC(ctx, "echo", []byte(`{"question":1}`))
		return json.RawMessage(found.Data), err
	}
}
