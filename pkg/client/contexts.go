package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"millrace/pkg/nodedir"
	"millrace/pkg/security"
)

// ErrNoContext says that no context has the name asked for, or that none is current.
var ErrNoContext = errors.New("no such context")

// ErrContextName is wrapped by errors about names that no context can have.
var ErrContextName = errors.New("letters, digits and . _ - only")

// DamagedContextError says that a context's file does not hold one.
type DamagedContextError struct {
	Name string
	Err  error
}

func (e *DamagedContextError) Error() string {
	return fmt.Sprintf("context %s is damaged: %s", e.Name, e.Err)
}
func (e *DamagedContextError) Unwrap() error { return e.Err }

// Context is what a person's tools need to reach a cluster: where it is, who
// they are, and the object store beside it. It holds secrets; its file has mode 0600.
type Context struct {
	Name        string   `json:"name"`
	Servers     []string `json:"servers,omitempty"`
	CA          string   `json:"ca,omitempty"` // PEM, as are the next two
	Certificate string   `json:"certificate,omitempty"`
	Key         string   `json:"key,omitempty"`
	Cluster     string   `json:"cluster,omitempty"` // name or id; "" = default
	S3          *S3      `json:"s3,omitempty"`
}

// S3 says how to reach an object store.
type S3 struct {
	Endpoint     string `json:"endpoint"`
	Region       string `json:"region,omitempty"`
	AccessKey    string `json:"accessKey,omitempty"`
	SecretKey    string `json:"secretKey,omitempty"`
	SessionToken string `json:"sessionToken,omitempty"`
	CABundle     string `json:"caBundle,omitempty"` // PEM
}

// Credential is the context's, for Config.
func (c *Context) Credential() security.Credential {
	return security.Credential{CertPEM: []byte(c.Certificate), KeyPEM: []byte(c.Key), CAPEM: []byte(c.CA)}
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func checkName(name string) error {
	if !contextName.MatchString(name) {
		return fmt.Errorf("context name %q: %w", name, ErrContextName)
	}
	return nil
}

func contextPath(home, name string) string {
	return filepath.Join(home, "contexts", name+".json")
}

func currentPath(home string) string { return filepath.Join(home, "current-context") }

// LoadContext reads a context; "" is the current one. ErrNoContext if there is none.
func LoadContext(home, name string) (*Context, error) {
	if name == "" {
		current, err := CurrentContext(home)
		if err != nil {
			return nil, err
		}
		name = current
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	c, err := ReadContext(contextPath(home, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoContext, name)
	}
	var path *fs.PathError
	if err != nil && !errors.As(err, &path) {
		return nil, &DamagedContextError{name, err}
	}
	if err != nil {
		return nil, err
	}
	c.Name = name
	return c, nil
}

// SaveContext writes a context under its name, replacing it whole.
func SaveContext(home string, c *Context) error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(home, "contexts"), 0o700); err != nil {
		return fmt.Errorf("save context %s: %w", c.Name, err)
	}
	return WriteContext(contextPath(home, c.Name), c)
}

// ProbeContexts makes sure that a context of that name can be saved.
func ProbeContexts(home, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	dir := filepath.Join(home, "contexts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save context %s: %w", name, err)
	}
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("save context %s: %w", name, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// CurrentContext is the name of the current context, or ErrNoContext.
func CurrentContext(home string) (string, error) {
	data, err := os.ReadFile(currentPath(home))
	name := strings.TrimSpace(string(data))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && name == "") {
		return "", fmt.Errorf("%w: none is current", ErrNoContext)
	}
	if err != nil {
		return "", fmt.Errorf("current context: %w", err)
	}
	return name, nil
}

// UseContext makes a context the current one. It must exist.
func UseContext(home, name string) error {
	if _, err := LoadContext(home, name); err != nil {
		return err
	}
	return nodedir.WriteFile(currentPath(home), []byte(name+"\n"))
}

// ListContexts gives the names, in order.
func ListContexts(home string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(home, "contexts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list contexts: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && checkName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// RemoveContext deletes a context; if it was current, none is any more.
func RemoveContext(home, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := os.Remove(contextPath(home, name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoContext, name)
	}
	if err != nil {
		return fmt.Errorf("remove context %s: %w", name, err)
	}
	if current, err := CurrentContext(home); err == nil && current == name {
		if err := os.Remove(currentPath(home)); err != nil {
			return fmt.Errorf("remove context %s: %w", name, err)
		}
	}
	return nil
}

// ReadContext reads a context file.
func ReadContext(path string) (*Context, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read context: %w", err)
	}
	var c Context
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read context %s: %w", path, err)
	}
	return &c, nil
}

// WriteContext writes a context file, mode 0600, atomically.
func WriteContext(path string, c *Context) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return nodedir.WriteFile(path, append(data, '\n'))
}
