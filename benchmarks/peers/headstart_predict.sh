headstart predict "$1" "$2" -o "$3"
