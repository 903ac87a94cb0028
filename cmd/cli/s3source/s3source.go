// Package s3source decides which object store a command speaks to. Endpoint
// and key come from exactly one source and are never mixed, so that a key is
// not sent to a store that it does not belong to.
package s3source

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"millrace/pkg/client"
)

// Flags are the object store's settings as given on the command line.
type Flags struct {
	Endpoint, AccessKey, SecretKey, SessionToken, Region, CAFile string
}

// Kind says which of the sources was taken.
type Kind int

// The sources, in the order in which they are asked.
const (
	None Kind = iota
	FromFlags
	FromEnvironment
	FromProfile // named by AWS_PROFILE
	FromContext
	FromDefault // keys of the environment without an endpoint, or the default profile
)

// Source is where the settings came from, and the settings.
type Source struct {
	Kind Kind
	Name string // for people: "context dev"
	S3   client.S3
}

// Error is a mistake in the settings, with what to do about it.
type Error struct{ Message, Next string }

func (e *Error) Error() string { return e.Message }

const awsEndpoint = "https://s3.%s.amazonaws.com"

// Resolve asks the sources in order. context may be nil. Kind is None when there is no source at all.
func Resolve(f Flags, getenv func(string) string, home string, context *client.Context) (Source, error) {
	s, err := choose(f, getenv, home, context)
	if err != nil || s.Kind == None {
		return s, err
	}
	s.S3.Endpoint = strings.TrimRight(s.S3.Endpoint, "/")
	if !strings.HasPrefix(s.S3.Endpoint, "http://") && !strings.HasPrefix(s.S3.Endpoint, "https://") {
		return s, &Error{fmt.Sprintf("the object store's URL %q (from %s) does not start with http:// or https://", s.S3.Endpoint, s.Name), "write it as http://host:port"}
	}
	if s.S3.CABundle == "" {
		if file := getenv("AWS_CA_BUNDLE"); file != "" {
			if s.S3.CABundle, err = readCA(file, "AWS_CA_BUNDLE"); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

func choose(f Flags, getenv func(string) string, home string, context *client.Context) (Source, error) {
	if f != (Flags{}) {
		return fromFlags(f, getenv, home)
	}
	if endpoint, variable := envEndpoint(getenv); endpoint != "" {
		s := Source{FromEnvironment, variable, envKeys(getenv)}
		s.S3.Endpoint = endpoint
		if s.S3.AccessKey == "" || s.S3.SecretKey == "" {
			return s, &Error{fmt.Sprintf("%s names %s, but AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set", variable, endpoint),
				"export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or unset " + variable}
		}
		return s, nil
	}
	if profile := getenv("AWS_PROFILE"); profile != "" {
		s := Source{Kind: FromProfile, Name: "AWS_PROFILE " + profile}
		found, err := loadProfile(getenv, home, profile, &s.S3)
		if err == nil && !found {
			err = &Error{fmt.Sprintf("AWS_PROFILE names %q, which is in neither ~/.aws/config nor ~/.aws/credentials with a key", profile), "check the name, or unset AWS_PROFILE"}
		}
		return s, err
	}
	if context != nil && context.S3 != nil && context.S3.Endpoint != "" {
		return Source{FromContext, "context " + context.Name, *context.S3}, nil
	}
	return fromDefault(getenv, home)
}

// fromFlags takes the endpoint from the flags, and the key, too. Keys alone in the
// environment (or a profile without an endpoint of its own) name no store, so they may go with --s3.
func fromFlags(f Flags, getenv func(string) string, home string) (Source, error) {
	s := Source{FromFlags, "flags", client.S3{Endpoint: f.Endpoint, Region: f.Region, AccessKey: f.AccessKey, SecretKey: f.SecretKey, SessionToken: f.SessionToken}}
	if f.Endpoint == "" {
		return s, &Error{"flags give settings of an object store, but not its URL", "add --s3 URL"}
	}
	if f.CAFile != "" {
		var err error
		if s.S3.CABundle, err = readCA(f.CAFile, "--s3-ca"); err != nil {
			return s, err
		}
	}
	if f.AccessKey != "" && f.SecretKey != "" {
		return s, nil
	}
	if f.AccessKey != "" || f.SecretKey != "" {
		return s, &Error{"--s3-access-key and --s3-secret-key go together", "give both, or neither and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY"}
	}
	keys := envKeys(getenv)
	if keys.AccessKey == "" {
		profile := getenv("AWS_PROFILE")
		if profile == "" {
			profile = "default"
		}
		if _, err := loadProfile(getenv, home, profile, &keys); err != nil {
			return s, err
		}
		if isAWS(keys.Endpoint) {
			keys.Endpoint = ""
		}
	} else {
		keys.Endpoint, _ = envEndpoint(getenv)
	}
	if keys.Endpoint != "" && strings.TrimRight(keys.Endpoint, "/") != strings.TrimRight(f.Endpoint, "/") {
		return s, &Error{fmt.Sprintf("--s3 names %s, but the key found belongs to %s", f.Endpoint, keys.Endpoint), "give the key of that store: --s3-access-key and --s3-secret-key"}
	}
	if keys.AccessKey == "" || keys.SecretKey == "" {
		return s, &Error{fmt.Sprintf("no key for the object store %s", f.Endpoint), "give --s3-access-key and --s3-secret-key, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}
	}
	s.S3.AccessKey, s.S3.SecretKey, s.S3.SessionToken = keys.AccessKey, keys.SecretKey, keys.SessionToken
	if s.S3.Region == "" {
		s.S3.Region = keys.Region
	}
	return s, nil
}

func fromDefault(getenv func(string) string, home string) (Source, error) {
	if keys := envKeys(getenv); keys.AccessKey != "" && keys.SecretKey != "" {
		s := Source{FromDefault, "AWS_ACCESS_KEY_ID", keys}
		s.S3.Endpoint = fmt.Sprintf(awsEndpoint, orDefault(keys.Region))
		return s, nil
	}
	s := Source{Kind: FromDefault, Name: "default profile"}
	found, err := loadProfile(getenv, home, "default", &s.S3)
	if err != nil || !found {
		return Source{}, err
	}
	return s, nil
}

func envEndpoint(getenv func(string) string) (endpoint, variable string) {
	for _, v := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		if e := getenv(v); e != "" {
			return e, v
		}
	}
	return "", ""
}

func envKeys(getenv func(string) string) client.S3 {
	s := client.S3{AccessKey: getenv("AWS_ACCESS_KEY_ID"), SecretKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"), Region: getenv("AWS_REGION")}
	if s.Region == "" {
		s.Region = getenv("AWS_DEFAULT_REGION")
	}
	return s
}

func orDefault(region string) string {
	if region == "" {
		return "us-east-1"
	}
	return region
}

func isAWS(endpoint string) bool {
	return strings.HasPrefix(endpoint, "https://s3.") && strings.HasSuffix(endpoint, ".amazonaws.com")
}

// loadProfile reads a profile of the AWS tools; found means that it has a key.
func loadProfile(getenv func(string) string, home, name string, s *client.S3) (found bool, err error) {
	file := func(variable, usual string) (sections, error) {
		path := getenv(variable)
		if path == "" {
			path = filepath.Join(home, ".aws", usual)
		}
		return readINI(path)
	}
	config, err := file("AWS_CONFIG_FILE", "config")
	if err != nil {
		return false, err
	}
	credentials, err := file("AWS_SHARED_CREDENTIALS_FILE", "credentials")
	if err != nil {
		return false, err
	}
	in := config["profile "+name]
	if in == nil && name == "default" {
		in = config["default"]
	}
	get := func(key string) string {
		if v := credentials[name][key]; v != "" {
			return v
		}
		return in[key]
	}
	s.AccessKey, s.SecretKey, s.SessionToken = get("aws_access_key_id"), get("aws_secret_access_key"), get("aws_session_token")
	s.Region = get("region")
	if services := get("services"); services != "" {
		s.Endpoint = config["services "+services]["s3.endpoint_url"]
	}
	if s.Endpoint == "" {
		s.Endpoint = get("endpoint_url")
	}
	if s.Endpoint == "" {
		s.Endpoint = fmt.Sprintf(awsEndpoint, orDefault(s.Region))
	}
	if ca := get("ca_bundle"); ca != "" {
		if s.CABundle, err = readCA(ca, "ca_bundle of profile "+name); err != nil {
			return false, err
		}
	}
	return s.AccessKey != "" && s.SecretKey != "", nil
}

func readCA(path, from string) (string, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return "", &Error{fmt.Sprintf("%s: %s", from, err), "name a readable file with certificates in PEM"}
	}
	return string(pem), nil
}
