package fleet

import (
	"context"
)

// Provider gives nodes that it is asked for. Its calls may take as long as their context lets them.
type Provider interface {
	// Launch starts a machine whose node joins with the request's token, and says what it calls the machine. Asked again with the same key
	// it starts no second one: it answers as before, and one that Revives starts it again if it has died.
	Launch(ctx context.Context, r Request) (machine string, err error)
	// Terminate ends a machine for good; there need be none of that key any more, or ever have been. machine is what Launch answered, or "".
	Terminate(ctx context.Context, key, machine string) error
	// List says which machines run, by key.
	List(ctx context.Context) (map[string]string, error)
}

// Reviver is a Provider that starts a machine where it was when it is asked for it again.
type Reviver interface{ Revives() bool }

// Request is what a provider needs to know to start a node. It holds a secret: Token, which UserData has in it.
type Request struct {
	Key         string   `json:"key"` // of the launch: whatever is asked again with it is the same
	Site        string   `json:"site"`
	Cluster     string   `json:"cluster"`
	ClusterName string   `json:"clusterName"`
	Group       string   `json:"group"`
	Role        string   `json:"role"`    // core, task
	Masters     []string `json:"masters"` // https://host:port
	Token       string   `json:"token"`
	UserData    string   `json:"userData,omitempty"` // script that makes a fresh machine the node
}
