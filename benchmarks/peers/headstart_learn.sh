headstart fit "$1" -o "$2"
