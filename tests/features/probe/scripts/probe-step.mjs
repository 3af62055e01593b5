console.log(`probe step before ${process.argv[2]}`);
